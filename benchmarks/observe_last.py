"""What `observe --last 20` with a filter costs the server when the ring is full and hardly anything matches.

CPU time of one thread for the whole answer, best of a few: neighbours on a shared core do not count. Nothing in the
ring passes the filters, so each goes through all of it. `observe_last20_ms` is the worst of those that people use
daily; the others are shown beside it.
"""

from __future__ import annotations

import random
import time

from flow import flow_pb2
from observer import observer_pb2

from benchmarks.errors import NotMeasured
from benchmarks.figures import OBSERVE_FILTERS
from benchmarks.intake import Town
from benchmarks.stage import Stage
from benchmarks.traffic import messages
from flows.intake import Intake
from flows.reader import Clock, Reader
from flows.reading import compile_request
from flows.ring import CAPACITY_MAX, Ring
from flows.uuids import uuids

LAST, ROUNDS, MESSAGES = 20, 3, 400
PIECE_SECONDS = 0.005
CLOCK = Clock(time.monotonic, time.time_ns)
Filter = flow_pb2.FlowFilter
FILTERS: dict[str, list[flow_pb2.FlowFilter]] = {
    "verdict": [Filter(verdict=[flow_pb2.ERROR])],
    "pod": [Filter(source_pod=["default/nobody"]), Filter(destination_pod=["default/nobody"])],
    "label": [Filter(source_label=["app=nobody"])],
    "path": [Filter(http_path=["^/api/v1/nothing/[0-9]+$"])],
    "port": [Filter(source_port=["9999"]), Filter(destination_port=["9999"])],
    "code": [Filter(http_status_code=["599"])],
    "url": [Filter(http_url=["nothing"])],
    "method": [Filter(http_method=["PATCH"])],
    "protocol": [Filter(protocol=["dns"])],
    "header": [Filter(http_header=[flow_pb2.HTTPHeader(key="x-nobody", value="none")])],
}
DAILY = ("verdict", "pod", "label", "path", "port", "code")


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark; needs no galaxy."""
    stage.note(f"observe: the last {LAST} of {CAPACITY_MAX:,} flows")
    ring = _full_ring()
    spent = {name: 1e3 * min(_seconds(ring, FILTERS[name]) for _ in range(ROUNDS)) for name in OBSERVE_FILTERS}
    return {"observe_last20_ms": max(spent[name] for name in DAILY)} | {
        f"observe_last20_{name}_ms": value for name, value in spent.items()
    }


def _full_ring() -> Ring:
    town = Town()
    made = Intake(Ring(CAPACITY_MAX), lambda: town, version="0.0.0", now_ns=time.time_ns, new_uuid=uuids().__next__)
    made.reading = True
    for message in messages(random.Random(4), MESSAGES):
        made.access_log(message)
    if len(made.ring) != CAPACITY_MAX:
        raise NotMeasured(f"the ring holds {len(made.ring)} flows, not {CAPACITY_MAX}")
    return made.ring


def _seconds(ring: Ring, wanted: list[flow_pb2.FlowFilter]) -> float:
    """CPU seconds of this thread for one answer."""
    before = time.thread_time()
    request = observer_pb2.GetFlowsRequest(number=LAST, whitelist=wanted)
    reader = Reader(ring, compile_request(request), Town.node_name, CLOCK)
    while not reader.is_done:
        reader.piece(PIECE_SECONDS)
    spent = time.thread_time() - before
    if reader.sent:
        raise NotMeasured(f"{reader.sent} flows pass a filter that none should")
    return spent

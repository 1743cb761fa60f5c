"""What `observe --last 20` with a filter costs the server when the ring is full and hardly anything matches.

CPU time of one thread for the whole answer, best of a few: neighbours on a shared core do not count. The ring holds
requests, answers and packets, as that of a node does. None of them passes the filters, so each goes through all of it.
`observe_last20_ms` is the worst of the filters that Hubble has; an expression in CEL, which is asked of each flow by
itself, is shown beside it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

from flow import flow_pb2
from observer import observer_pb2

from benchmarks.errors import NotMeasured
from benchmarks.figures import OBSERVE_FILTERS
from benchmarks.intake import Town
from benchmarks.stage import Stage
from benchmarks.traffic import CLIENTS, PORT, SERVERS, messages
from flows.intake import Intake
from flows.reader import Clock, Reader
from flows.reading import compile_request
from flows.record import PacketKind, PacketRecord, PacketVerdict
from flows.ring import CAPACITY_MAX, Ring
from flows.uuids import uuids
from policies.types import Direction

LAST, ROUNDS, MESSAGES = 20, 3, 250
CONNECTIONS = 25  # that open and close between two messages of 100 requests
PIECE_SECONDS = 0.005
SYN, FIN, ACK, TO_PROXY, TO_STACK = 0x02, 0x01, 0x10, 1, 3
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
    "flags": [Filter(tcp_flags=[flow_pb2.TCPFlags(URG=True)])],
    "header": [Filter(http_header=[flow_pb2.HTTPHeader(key="x-nobody", value="none")])],
}
FILTERS["cel"] = [Filter(experimental={"cel_expression": ["_flow.l4.TCP.destination_port == 9999u"]})]


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark; needs no galaxy."""
    stage.note(f"observe: the last {LAST} of {CAPACITY_MAX:,} flows")
    ring = _full_ring()
    spent = {name: 1e3 * min(_seconds(ring, FILTERS[name]) for _ in range(ROUNDS)) for name in OBSERVE_FILTERS}
    return {"observe_last20_ms": max(spent[name] for name in spent if name != "cel")} | {
        f"observe_last20_{name}_ms": value for name, value in spent.items()
    }


def _full_ring() -> Ring:
    town = Town()
    made = Intake(Ring(CAPACITY_MAX), lambda: town, version="0.0.0", now_ns=time.time_ns, new_uuid=uuids().__next__)
    made.reading = True
    chance = random.Random(4)
    for message in messages(chance, MESSAGES):
        made.packets([packet for _ in range(CONNECTIONS) for packet in _connection(chance)])
        made.access_log(message)
    if len(made.ring) != CAPACITY_MAX:
        raise NotMeasured(f"the ring holds {len(made.ring)} flows, not {CAPACITY_MAX}")
    return made.ring


def _connection(chance: random.Random) -> Iterator[PacketRecord]:
    """What the kernel tells of one that is sent to the proxy, opened and closed."""
    client, server, port = chance.choice(CLIENTS), chance.choice(SERVERS)[0], chance.randint(32768, 60999)
    there = PacketRecord(PacketKind.TRACE, client, server, source_port=port, destination_port=PORT, trace_reason=1)
    back = replace(there, source_ip=server, destination_ip=client, source_port=PORT, destination_port=port)
    yield replace(there, tcp_flags=SYN, observation_point=TO_STACK, direction=Direction.EGRESS)
    opened = replace(there, tcp_flags=SYN, direction=Direction.INGRESS)
    yield replace(opened, kind=PacketKind.POLICY_VERDICT, verdict=PacketVerdict.REDIRECTED, match_type=2)
    yield replace(opened, observation_point=TO_PROXY, proxy_port=14000)
    yield replace(back, tcp_flags=SYN | ACK, trace_reason=3)
    yield replace(there, tcp_flags=ACK | FIN, observation_point=TO_PROXY, trace_reason=2, proxy_port=14000)
    yield replace(back, tcp_flags=ACK | FIN, trace_reason=3)


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

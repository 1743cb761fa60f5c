"""From a request to its flow at a follower of the Hubble API.

`request_to_flow`: from the answer to the later of the exchange's two flows, allowed or denied. `open_request_to_flow`:
from asking to the REQUEST flow, where the answer takes its time.
"""

from __future__ import annotations

import random
import time

from flow import flow_pb2

from benchmarks.connection import Connection
from benchmarks.errors import NotMeasured
from benchmarks.follower import Follower, follower
from benchmarks.policy import http_policy
from benchmarks.samples import median, percentile
from benchmarks.stage import SEEN_PORT, SLOW_PORT, Stage
from conformance.manifests import policy_file

REQUESTS, SLOW_REQUESTS = 120, 20
GAP = (0.01, 0.05)  # seconds between two requests, at random: not in step with the proxy's flush timer
ALLOWED, DENIED = "/v1/seen/", "/v1/hidden/"
ENFORCED = 10.0
SUBSCRIBED = 10.0
BOTH = frozenset({flow_pb2.REQUEST, flow_pb2.RESPONSE})


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    stage.node.await_ready()
    for port in (SEEN_PORT, SLOW_PORT):
        text = http_policy(f"seen-{port}", port, [f"{ALLOWED}.*"])
        stage.deflected.manifests.write(policy_file(f"seen-{port}"), text)
    for port in (SEEN_PORT, SLOW_PORT):
        stage.await_allowed(port, f"{ALLOWED}first", ENFORCED)
    chance = random.Random(2)
    with follower(stage.node.hubble_socket) as watching:
        stage.note(f"visibility: {REQUESTS} requests and a follower")
        with stage.connect(SEEN_PORT) as connection:
            _await_subscription(connection, watching)
            watching.keep()
            ended = [_ended_to_flow(connection, watching, number, chance) for number in range(REQUESTS)]
        stage.note(f"visibility: {SLOW_REQUESTS} slow requests and a follower")
        with stage.connect(SLOW_PORT) as connection:
            opened = [_opened_to_flow(connection, watching, number, chance) for number in range(SLOW_REQUESTS)]
    return {
        "request_to_flow_p50_ms": median(ended) * 1e3,
        "request_to_flow_p99_ms": percentile(ended, 0.99) * 1e3,
        "open_request_to_flow_p50_ms": median(opened) * 1e3,
        "open_request_to_flow_p99_ms": percentile(opened, 0.99) * 1e3,
    }


def _ended_to_flow(connection: Connection, watching: Follower, number: int, chance: random.Random) -> float:
    """Seconds from an answer to both flows; every third request is denied."""
    time.sleep(chance.uniform(*GAP))
    path = f"{DENIED if number % 3 == 2 else ALLOWED}{number}"
    answered = connection.get(path).answered
    return _seen(watching, path, BOTH) - answered


def _opened_to_flow(connection: Connection, watching: Follower, number: int, chance: random.Random) -> float:
    """Seconds from asking to the flow of the request; the answer comes SLOWNESS later."""
    time.sleep(chance.uniform(*GAP))
    path = f"{ALLOWED}slow/{number}"
    asked = connection.get(path).asked
    return _seen(watching, path, frozenset({flow_pb2.REQUEST})) - asked


def _await_subscription(connection: Connection, watching: Follower) -> None:
    """A stream shows what happens after it was opened, and does not say when that was."""
    deadline = time.monotonic() + SUBSCRIBED
    while not watching.flows:
        connection.get(f"{ALLOWED}before")
        if time.monotonic() > deadline:
            raise NotMeasured(f"a follower of the Hubble API sees no flow after {SUBSCRIBED:.0f} s of requests")
        time.sleep(0.02)


def _seen(watching: Follower, path: str, kinds: frozenset[flow_pb2.L7FlowType]) -> float:
    """When the last of these flows of the path came."""
    missing = set(kinds)
    while True:
        arrived, flow = watching.next()
        if flow.l7.http.url.endswith(path):
            missing.discard(flow.l7.type)
            if not missing:
                return arrived

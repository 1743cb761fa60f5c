"""From the answer to a request to its flow at a follower: the later of its two flows counts, allowed or denied."""

from __future__ import annotations

import random
import time

from flow import flow_pb2

from benchmarks.connection import Connection
from benchmarks.errors import NotMeasured
from benchmarks.follower import Follower, follower
from benchmarks.policy import http_policy
from benchmarks.samples import median, percentile
from benchmarks.stage import SEEN_PORT, Stage
from conformance.manifests import policy_file

REQUESTS = 120
GAP = (0.01, 0.05)  # seconds between two requests, at random: not in step with the proxy's flush timer
ALLOWED, DENIED = "/v1/seen/", "/v1/hidden/"
PATTERN = f"{ALLOWED}.*"
ENFORCED = 10.0
SUBSCRIBED = 10.0


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    stage.node.await_ready()
    stage.note(f"visibility: {REQUESTS} requests and a follower")
    stage.deflected.manifests.write(policy_file("seen"), http_policy("seen", SEEN_PORT, [PATTERN]))
    stage.await_allowed(SEEN_PORT, f"{ALLOWED}first", ENFORCED)
    chance = random.Random(2)
    taken = []
    with stage.connect(SEEN_PORT) as connection, follower(stage.node.hubble_socket) as watching:
        _await_subscription(connection, watching)
        watching.keep()
        for number in range(REQUESTS):
            path = f"{DENIED if number % 3 == 2 else ALLOWED}{number}"
            answered = connection.get(path).answered
            taken.append((_seen(watching, path) - answered) * 1e3)
            time.sleep(chance.uniform(*GAP))
    return {"request_to_flow_p50_ms": median(taken), "request_to_flow_p99_ms": percentile(taken, 0.99)}


def _await_subscription(connection: Connection, watching: Follower) -> None:
    """A stream shows what happens after it was opened, and does not say when that was."""
    deadline = time.monotonic() + SUBSCRIBED
    while not watching.flows:
        connection.get(f"{ALLOWED}before")
        if time.monotonic() > deadline:
            raise NotMeasured(f"a follower of the Hubble API sees no flow after {SUBSCRIBED:.0f} s of requests")
        time.sleep(0.02)


def _seen(watching: Follower, path: str) -> float:
    """When both the request's and the response's flow had come."""
    missing = {flow_pb2.REQUEST, flow_pb2.RESPONSE}
    while True:
        arrived, flow = watching.next()
        if flow.l7.http.url.endswith(path):
            missing.discard(flow.l7.type)
            if not missing:
                return arrived

"""The evaluator against the real Envoy: random policies translated and served, random requests sent and judged.

One Envoy for all examples; each replaces its listeners and filters, as a node does. `make fuzz` runs it for longer.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.offline import compile_offline
from policies.explaining.explain import L7Verdict, Question, Side, explain
from policies.explaining.scene import Scene
from policies.ir import NodePolicy
from policies.judging.evaluate import decide_packet
from policies.judging.requests import REDIRECT, Request
from policies.repository import Repository
from policies.types import Protocol
from tests.features.live import ControlPlane, HttpClient, Origin, control_plane, live_envoy, on_loopback, origin
from tests.features.test_stories import free_port
from tests.oracle.paste import example
from tests.oracle.worlds import CLIENTS, SERVER, http_pods, http_policies, requests
from tests.policies.make import manifest
from xds.resources import FILTER, LISTENER
from xds.translator import Options, translate

pytestmark = pytest.mark.asyncio(loop_scope="module")
PORTS = (80, 81)


@dataclass(repr=False)
class Proxy:
    """An Envoy under test and the origin behind it. Each example has its own listeners: an old one may still drain."""

    plane: ControlPlane
    behind: Origin
    ports: dict[str, int] = field(default_factory=dict)
    clients: dict[str, HttpClient] = field(default_factory=dict)
    _examples: Iterator[int] = field(default_factory=count)

    async def serve(self, node: NodePolicy) -> None:
        self.close()
        example = next(self._examples)
        slots = tuple(replace(slot, name=f"{example}:{slot.name}") for slot in node.slots)
        self.ports = {slot.name: free_port() for slot in slots}
        table = translate(replace(node, slots=slots), self.ports, Options(ipv6=False))
        assert not table.errors, table.errors
        self.plane.cache.publish(on_loopback(table, self.behind.port))
        names = list(self.ports)
        result = await self.plane.ads.wait_acked({LISTENER: names, FILTER: names}, 20)
        assert result.is_complete, result
        self.ports = {name.partition(":")[2]: port for name, port in self.ports.items()}

    async def ask(self, slot: str, request: Request) -> tuple[int, str]:
        """The status, and the path that came through, or that a redirect leads to."""
        client = self.clients.pop(slot, None) or await HttpClient.connect(self.ports[slot])
        self.behind.heads.clear()
        headers = (*request.headers, ("Content-Length", "0"))
        answer = await client.get(request.path, method=request.method, host=request.host, headers=headers)
        if answer.is_closed:
            client.close()
        else:
            self.clients[slot] = client
        if self.behind.heads:
            return answer.status, self.behind.heads[-1].split(b" ")[1].decode()
        return answer.status, answer.headers.get("location", "")

    def close(self) -> None:
        for client in self.clients.values():
            client.close()
        self.clients.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def proxy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Proxy]:
    place: Path = tmp_path_factory.mktemp("oracle")
    async with control_plane(place) as plane, live_envoy(place, plane.socket), origin() as behind:
        made = Proxy(plane, behind)
        yield made
        made.close()


def scene_of(objects: list[dict[str, Any]]) -> Scene:
    repository = Repository()
    assert not repository.replace("all.yaml", manifest(*objects)).errors
    scene, errors = compile_offline(repository.world())
    assert not errors
    return scene


def slot_of(scene: Scene, side: Side, client: str, port: int) -> str:
    """The slot that the kernel would send this client's connection to."""
    end = scene.end(f"default/{SERVER}")
    policy = scene.policy(end)
    assert policy is not None
    rule = decide_packet(policy.ingress, scene.end(f"default/{client}").identity, Protocol.TCP, port).rule
    assert rule is not None
    assert rule.slot, side
    return rule.slot


def expected(side: Side) -> tuple[int, str]:
    """What Envoy must answer, and the path that must come through."""
    assert side.l7 is not None
    assert side.l7.decision is not None
    arrival = side.l7.decision.arrival
    match side.l7.verdict:
        case L7Verdict.ALLOWED:
            return 200, arrival.request.path
        case L7Verdict.DENIED:
            return 403, ""
    return arrival.status, arrival.request.path if arrival.status == REDIRECT else ""


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(rules=http_policies(), asked=st.lists(requests(), min_size=20, max_size=30))
async def test_envoy_answers_as_the_evaluator_says(
    proxy: Proxy, rules: list[dict[str, Any]], asked: list[Request]
) -> None:
    objects = [*http_pods(), *rules]
    scene = scene_of(objects)
    await proxy.serve(scene.node)
    for number, request in enumerate(asked):
        client = list(CLIENTS)[number % len(CLIENTS)]
        for port in PORTS:
            target = scene.target(f"default/{SERVER}", Protocol.TCP, port)
            question = Question(scene.end(f"default/{client}"), target, Protocol.TCP, request)
            (side,) = explain(scene, question).ingress
            if side.l7 is None:
                continue  # the kernel lets it pass or drops it: tests/oracle/test_kernel.py
            answer = await proxy.ask(slot_of(scene, side, client, port), request)
            paste = example(objects, f"default/{client}", f"default/{SERVER}", f"{port}/TCP", request)
            assert answer == expected(side), f"Envoy: {answer}, the evaluator: {expected(side)}{paste}"

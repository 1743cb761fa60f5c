"""A new agent without the books of the old one gives no second meaning to numbers that stand in pinned maps."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from agent.node.remains import Remains, remains
from bpf.entries import Desired
from bpf.redirects import desired
from conformance.blueprint import star_wars
from conformance.galaxy import Galaxy, galaxy
from conformance.node import Node
from policies.compiling.identity import IdentityAllocator, Scope
from policies.ir import (
    Address,
    DirectionPolicy,
    Endpoint,
    EndpointPolicy,
    NodePolicy,
    PeerRule,
    PortPolicy,
    RuleSet,
    Verdict,
)
from policies.types import IDENTITY_FIRST_LOCAL as LOCAL
from policies.types import IDENTITY_LAST_ALLOCATED, PortRange, Protocol
from tests.agent.galaxy import DROPPED, LANDING, PORT, Asker, http_rule, save

FORMER = "state.json is missing or unusable"


def test_identities_and_ports_are_read_from_the_maps() -> None:
    peers = (PeerRule((257,), Verdict.REDIRECT, rule_set=RuleSet(), slot="s"), PeerRule((258, 300), Verdict.ALLOW))
    policy = EndpointPolicy(
        256, (), DirectionPolicy(True, (PortPolicy(Protocol.TCP, PortRange(80, 80), peers),)), DirectionPolicy()
    )
    endpoints = (Endpoint(7, 256, "default", "deathstar", ("10.0.0.1",)),)
    addresses = (Address("10.0.0.9/32", 259), Address("10.1.0.0/16", LOCAL + 4), Address("0.0.0.0/0", 9))
    found = remains(desired(NodePolicy(1, (policy,), endpoints, addresses), {"s": 14003}))
    assert found == Remains(frozenset({256, 257, 258, 259, 300, LOCAL + 4}), frozenset({14003}))
    assert found.highest == {Scope.CLUSTER: 300, Scope.LOCAL: LOCAL + 4}
    anew = IdentityAllocator(behind=found.highest)
    assert [anew.allocate(("k8s:a",)), anew.allocate(("cidr:10.0.0.0/8",), Scope.LOCAL)] == [301, LOCAL + 5]


def test_empty_maps_leave_nothing_to_respect() -> None:
    assert not remains(Desired())


def test_numbers_begin_anew_where_there_is_no_room_behind_the_old_ones() -> None:
    assert Remains(frozenset({256, IDENTITY_LAST_ALLOCATED})).highest == {}


@asynccontextmanager
async def asked_all_the_time(asker: Asker) -> AsyncIterator[set[tuple[str, str]]]:
    """Who asks what nobody allows, and the answers: until the end of the block."""
    answers: set[tuple[str, str]] = set()
    over = asyncio.Event()

    async def loop(who: str, request: tuple[str, str]) -> None:
        while not over.is_set():
            answers.add((who, await asyncio.to_thread(asker.ask, who, request, 0.1)))

    async with asyncio.TaskGroup() as group:
        group.create_task(loop("xwing", LANDING))
        group.create_task(loop("tiefighter", PORT))
        try:
            yield answers
        finally:
            over.set()


@pytest.mark.privileged
@pytest.mark.parametrize("envoy_dies", [False, True], ids=["agent only", "agent and Envoy"])
async def test_lost_books_open_nothing_and_confuse_nobody(envoy_dies: bool) -> None:
    """The alliance comes first by name now: numbered from the beginning, it would get the empire's number."""
    with galaxy(star_wars(), prefix="lost") as made:
        save(made, "land", http_rule(LANDING, {"org": "empire"}))
        asker, node = Asker(made), Node(made)
        await node.start()
        try:
            former = await node.status() or {}
            envoy = int(former["envoy"]["pid"])
            await node.kill()
            if envoy_dies:
                os.kill(envoy, signal.SIGKILL)
            (made.run_dir / "state.json").unlink()
            _put_first(made, "xwing")
            async with asked_all_the_time(asker) as answers:
                await node.start()
            status = await node.status() or {}
            for what, key in (("endpoints", "identity"), ("slots", "port")):
                old, new = ({entry[key] for entry in document[what]} for document in (former, status))
                assert old.isdisjoint(new), what
            assert answers <= {("xwing", DROPPED), ("tiefighter", DROPPED), ("tiefighter", "403")}
            assert asker.ask("tiefighter", LANDING, 2.0) == "200"
            assert asker.ask("tiefighter", PORT, 2.0) == "403"
            assert asker.ask("xwing", LANDING, 0.2) == DROPPED
            assert sum(FORMER in line for line in node.log_file.read_text().splitlines()) == 1
        finally:
            problems = await node.stop()
        assert problems == []


def _put_first(made: Galaxy, name: str) -> None:
    text = (made.manifests.root / "pods.yaml").read_text()
    assert f"name: {name}\n" in text
    made.manifests.write("pods.yaml", text.replace(f"name: {name}\n", f"name: a-{name}\n"))

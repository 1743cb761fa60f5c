"""A proxy of ours and the real ADS server: told, edited, refused, left alone by the agent, and found again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from policies.ir import L7Parser, NodePolicy, RuleSet, Slot, SlotState
from tests.features.live import BOUND_S, NODE_ID, ControlPlane, control_plane
from tests.xds.make import node, rule, slot
from tests.xds.test_l7 import DNS, KAFKA, OVER_TCP
from xds.acks import AckResult
from xds.cache import SnapshotCache
from xds.client import AdsClient, Told
from xds.consumer import Consumer
from xds.l7 import DNS_PROXY, KAFKA_PROXY
from xds.options import DnsSettings, KafkaSettings, Options
from xds.resources import DNS_OPTIONS, KAFKA_OPTIONS, LISTENER
from xds.translator import translate

PORTS = {DNS.name: 10_001, OVER_TCP.name: 10_002, KAFKA.name: 10_003, "ingress:256:80": 10_004}


@dataclass
class Proxy:
    """Applies what it is told; refuses slots whose names it is told to refuse."""

    refuses: set[str] = field(default_factory=set)
    told: list[Told] = field(default_factory=list)

    async def apply(self, told: Told) -> None:
        for one in told.listening:
            if one.slot.name in self.refuses:
                raise ValueError(f"slot {one.slot.name}: cannot listen on port {one.port}: busy")
        self.told.append(told)

    @property
    def slots(self) -> dict[str, Slot]:
        return {one.slot.name: one.slot for one in self.told[-1].listening} if self.told else {}


@asynccontextmanager
async def running(plane: Path, proxy: Proxy, consumer: str = DNS_PROXY) -> AsyncIterator[AdsClient]:
    client = AdsClient(plane, NODE_ID, consumer, proxy.apply)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(client.run())
        yield client
        task.cancel()


@dataclass
class Agent:
    """What the agent would do to its consumer."""

    consumer: Consumer
    parser: L7Parser = L7Parser.DNS

    def publish(self, policy: NodePolicy, *, hide_topics: bool = True, **settings: object) -> None:
        options = Options(dns=DnsSettings(**settings), kafka=KafkaSettings(hide_topics))  # type: ignore[arg-type]
        self.consumer.cache.publish(translate(policy, PORTS, options, self.parser))

    async def acked(self, *names: str) -> AckResult:
        common = {L7Parser.DNS: {DNS_OPTIONS: ["dns"]}, L7Parser.KAFKA: {KAFKA_OPTIONS: ["kafka"]}}
        return await self.consumer.wait_acked({LISTENER: list(names), **common[self.parser]}, BOUND_S)


@pytest.fixture
async def plane(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with control_plane(tmp_path) as plane:
        yield plane


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND_S):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_proxy_is_told_its_slots_and_what_holds_for_the_node(plane: ControlPlane) -> None:
    proxy, agent = Proxy(), Agent(plane.dns)
    async with running(plane.socket, proxy):
        agent.publish(node(slot("ingress:256:80", rule("GET")), DNS, KAFKA), rejection="nameError")
        assert (await agent.acked(DNS.name)).is_complete
        assert proxy.slots == {DNS.name: DNS}
        assert proxy.told[-1].listening[0].port == PORTS[DNS.name]
        assert proxy.told[-1].dns.settings.rejection == "nameError"
        assert not plane.ads.is_connected, "Envoy is another"


async def test_the_kafka_proxy_is_told_what_holds_for_all_its_slots(plane: ControlPlane) -> None:
    proxy, agent = Proxy(), Agent(plane.kafka, L7Parser.KAFKA)
    async with running(plane.socket, proxy, KAFKA_PROXY):
        for hides in (False, True):
            agent.publish(node(DNS, KAFKA), hide_topics=hides)
            assert (await agent.acked(KAFKA.name)).is_complete
            assert proxy.slots == {KAFKA.name: KAFKA}
            assert proxy.told[-1].kafka == KafkaSettings(hides)


async def test_each_proxy_answers_for_its_own(plane: ControlPlane) -> None:
    dns, kafka = Proxy(), Proxy(refuses={KAFKA.name})
    async with running(plane.socket, dns), running(plane.socket, kafka, KAFKA_PROXY):
        agents = Agent(plane.dns), Agent(plane.kafka, L7Parser.KAFKA)
        for agent in agents:
            agent.publish(node(DNS, KAFKA))
        assert (await agents[0].acked(DNS.name)).is_complete
        refused = await agents[1].acked(KAFKA.name)
        assert list(refused.nacked.values()) == [f"slot {KAFKA.name}: cannot listen on port 10003: busy"]
        assert plane.dns.nacks == 0


async def test_an_edit_replaces_the_rules_in_place_and_a_slot_that_goes_is_gone(plane: ControlPlane) -> None:
    proxy, agent = Proxy(), Agent(plane.dns)
    async with running(plane.socket, proxy):
        agent.publish(node(DNS, OVER_TCP))
        await agent.acked(DNS.name, OVER_TCP.name)
        edited = replace(DNS, rule_set=RuleSet(), state=SlotState.RETIRED)
        agent.publish(node(edited, OVER_TCP))
        assert (await agent.acked(DNS.name)).is_complete
        assert proxy.slots == {DNS.name: edited, OVER_TCP.name: OVER_TCP}
        agent.publish(node(OVER_TCP))
        assert (await agent.acked(DNS.name, OVER_TCP.name)).is_complete
        assert proxy.slots == {OVER_TCP.name: OVER_TCP}


async def test_what_is_refused_changes_nothing_and_hurts_no_other(plane: ControlPlane) -> None:
    proxy, agent = Proxy(refuses={OVER_TCP.name}), Agent(plane.dns)
    async with running(plane.socket, proxy):
        agent.publish(node(DNS, OVER_TCP))
        result = await agent.acked(DNS.name, OVER_TCP.name)
        assert [key.name for key in result.nacked] == [OVER_TCP.name]
        assert (await agent.acked(DNS.name)).is_complete
        assert proxy.slots == {DNS.name: DNS}


async def test_the_agent_goes_and_another_one_comes(tmp_path: Path) -> None:
    """What went while it was away is told; what stayed is not applied again."""
    proxy = Proxy()
    async with control_plane(tmp_path) as plane, running(plane.socket, proxy) as client:
        agent = Agent(plane.dns)
        agent.publish(node(DNS, OVER_TCP))
        await agent.acked(DNS.name, OVER_TCP.name)
        applied = len(proxy.told)
        await plane.stop()
        await until(lambda: not client.is_connected)
        assert len(proxy.told) == applied, "goes on as told"
        async with control_plane(tmp_path) as second:
            agent = Agent(second.dns)
            agent.publish(node(DNS, OVER_TCP))
            assert (await agent.acked(DNS.name, OVER_TCP.name)).is_complete
            assert len(proxy.told) == applied, "nothing has changed"
            await second.stop()
        async with control_plane(tmp_path) as third:
            agent = Agent(third.dns)
            agent.publish(node(OVER_TCP))
            assert (await agent.acked(DNS.name, OVER_TCP.name)).is_complete
            assert proxy.slots == {OVER_TCP.name: OVER_TCP}


async def test_what_a_proxy_has_from_its_disk_is_taken_back_where_nobody_wants_it_any_more(tmp_path: Path) -> None:
    first, second = Proxy(), Proxy()
    async with control_plane(tmp_path) as plane:
        agent = Agent(plane.dns)
        agent.publish(node(DNS, OVER_TCP))
        async with running(plane.socket, first):
            await agent.acked(DNS.name, OVER_TCP.name)
        agent.publish(node(DNS))
        restarted = AdsClient(plane.socket, NODE_ID, DNS_PROXY, second.apply, holds=first.told[-1])
        async with asyncio.TaskGroup() as group:
            task = group.create_task(restarted.run())
            assert (await agent.acked(DNS.name, OVER_TCP.name)).is_complete
            task.cancel()
        assert second.slots == {DNS.name: DNS}


async def test_before_the_first_publish_nothing_is_taken_away(tmp_path: Path) -> None:
    """A new agent that has not compiled yet is no agent that wants nothing."""
    proxy = Proxy()
    async with control_plane(tmp_path) as plane, running(plane.socket, proxy):
        await until(lambda: plane.dns.is_connected)
        assert proxy.told == []
        assert plane.dns.cache.snapshot is None
        assert isinstance(plane.dns.cache, SnapshotCache)

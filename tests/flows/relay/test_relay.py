"""A cluster of nodes behind a relay, over real sockets: one stream, and what is said when a node is missing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from flow import flow_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from observer import observer_pb2, observer_pb2_grpc
from peer import peer_pb2
from relay import relay_pb2

from flows.client import ask_status, observe
from flows.observer import Observer
from flows.relay.peers import Peer, Peers, RelayError, channel
from flows.relay.pool import Pool
from flows.relay.service import RelayService
from flows.rpc.call import Call
from flows.rpc.server import Server
from flows.server import start
from tests.flows.make import Galaxy, drop


@dataclass
class PeerService:
    """Tells of the nodes that it is told."""

    nodes: dict[str, str] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    async def notify(self, call: Call) -> None:
        await call.message()
        self.calls.append(call)
        await call.send([self._news(name, peer_pb2.PEER_ADDED) for name in sorted(self.nodes)])
        await asyncio.Event().wait()

    async def remove(self, name: str) -> None:
        news = self._news(name, peer_pb2.PEER_DELETED)
        del self.nodes[name]
        for call in self.calls:
            await call.send([news])

    def _news(self, name: str, kind: peer_pb2.ChangeNotificationType) -> bytes:
        return peer_pb2.ChangeNotification(name=name, address=self.nodes[name], type=kind).SerializeToString()


@dataclass
class Cluster:
    """Nodes by name, the peer service, and the address of the relay."""

    relay: str
    service: PeerService
    observers: dict[str, Observer]
    servers: dict[str, Server]


@asynccontextmanager
async def cluster(tmp_path: Path, *names: str, missing: tuple[str, ...] = ()) -> AsyncIterator[Cluster]:
    service = PeerService({name: f"unix://{tmp_path}/{name}.sock" for name in (*names, *missing)})
    observers = {name: Observer(lambda name=name: Galaxy(node_name=name), version="0.1.0") for name in names}  # type: ignore[misc]
    servers = {name: await start(observers[name], [service.nodes[name]]) for name in names}
    telling = Server({"/peer.Peer/Notify": service.notify})
    await telling.listen(f"unix://{tmp_path}/peers.sock")
    complaints: list[str] = []
    peers = Peers(Peer("peers", f"unix://{tmp_path}/peers.sock"), None, complaints.append)
    pool = Pool(lambda: peers.known, None)
    relay = Server(RelayService(peers, pool, "relay-1", "0.1.0").methods())
    await relay.listen(f"unix://{tmp_path}/relay.sock")
    async with asyncio.TaskGroup() as group:
        following = group.create_task(peers.follow())
        try:
            await until(lambda: len(peers.known) == len(service.nodes))
            yield Cluster(f"unix://{tmp_path}/relay.sock", service, observers, servers)
        finally:
            following.cancel()
            await relay.stop(None)
            await pool.close()
            for server in (*servers.values(), telling):
                await server.stop(None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def states(responses: list[observer_pb2.GetFlowsResponse]) -> list[tuple[str, list[str]]]:
    told = [r.node_status for r in responses if r.HasField("node_status")]
    return [(relay_pb2.NodeState.Name(one.state_change), list(one.node_names)) for one in told]


async def test_flows_of_all_nodes_come_in_order_of_time(tmp_path: Path) -> None:
    async with cluster(tmp_path, "n1", "n2", "n3") as here:
        for _ in range(20):
            for observer in here.observers.values():
                observer.packets([drop()])
        async with asyncio.timeout(10):
            responses = [r async for r in observe(here.relay, observer_pb2.GetFlowsRequest())]
    assert states(responses) == [("NODE_CONNECTED", ["n1", "n2", "n3"])]
    flows = [r for r in responses if r.HasField("flow")]
    assert len(flows) == 60
    times = [r.time.ToNanoseconds() for r in flows]
    assert times == sorted(times)
    assert {r.node_name for r in flows} == {"n1", "n2", "n3"}
    assert responses[0].node_name == "relay-1"


async def test_a_follower_sees_what_comes_and_who_goes(tmp_path: Path) -> None:
    seen: list[observer_pb2.GetFlowsResponse] = []
    async with cluster(tmp_path, "n1", "n2") as here, asyncio.timeout(20):
        stream = observe(here.relay, observer_pb2.GetFlowsRequest(follow=True, number=9))
        seen.append(await anext(stream))
        here.observers["n2"].packets([drop()])
        seen.append(await anext(stream))
        assert seen[-1].flow.verdict == flow_pb2.DROPPED
        await here.service.remove("n1")
        seen.append(await anext(stream))
        await stream.aclose()  # type: ignore[attr-defined]
    assert states(seen) == [("NODE_CONNECTED", ["n1", "n2"]), ("NODE_GONE", ["n1"])]


async def test_a_node_that_breaks_off_is_told_and_tried_again(tmp_path: Path) -> None:
    async with cluster(tmp_path, "n1", "n2") as here, asyncio.timeout(30):
        stream = observe(here.relay, observer_pb2.GetFlowsRequest(follow=True, number=9))
        seen = [await anext(stream)]
        await here.servers["n2"].stop(None)
        while not any(state == "NODE_UNAVAILABLE" for state, _ in states(seen)):
            seen.append(await anext(stream))
        here.servers["n2"] = await start(here.observers["n2"], [here.service.nodes["n2"]])
        while states(seen).count(("NODE_CONNECTED", ["n2"])) < 1:
            seen.append(await anext(stream))
        here.observers["n2"].packets([drop()])
        while not seen[-1].HasField("flow"):
            seen.append(await anext(stream))
        assert seen[-1].node_name == "n2"
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_node_that_goes_in_the_middle_of_an_answer_ends_it(tmp_path: Path) -> None:
    """Its connection is closed under the call as soon as anybody asks for the nodes that there are."""
    asked = asyncio.Event()

    async def stall(call: Call) -> None:
        await call.message()
        call.open()
        asked.set()
        await asyncio.Event().wait()

    stalling = Server({"/observer.Observer/GetFlows": stall})
    async with cluster(tmp_path, "n1", missing=("n9",)) as here, asyncio.timeout(20):
        await stalling.listen(f"unix://{tmp_path}/n9.sock")
        here.observers["n1"].packets([drop()])

        async def read() -> list[observer_pb2.GetFlowsResponse]:
            return [response async for response in observe(here.relay, observer_pb2.GetFlowsRequest())]

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            await asked.wait()
            await here.service.remove("n9")
            await until_status(here.relay)
        await stalling.stop(None)
    seen = reading.result()
    assert sum(one.HasField("flow") for one in seen) == 1
    (error,) = (one.node_status for one in seen if one.node_status.state_change == relay_pb2.NODE_ERROR)
    assert (list(error.node_names), error.message) == (["n9"], "the connection was closed: the node has gone")


async def until_status(relay: str) -> None:
    """Ask for the status until it speaks of one node."""
    while True:
        state = await ask_status(relay)
        assert state.status is not None
        known = state.status.num_connected_nodes.value + state.status.num_unavailable_nodes.value
        if known == 1:
            return
        await asyncio.sleep(0.05)


async def test_the_status_adds_up_and_names_who_is_missing(tmp_path: Path) -> None:
    async with cluster(tmp_path, "n1", "n2", missing=("n9",)) as here:
        here.observers["n1"].packets([drop(), drop()])
        here.observers["n2"].packets([drop()])
        state = await ask_status(here.relay)
        assert state.state == "SERVING"
        assert state.status is not None
        assert (state.status.num_flows, state.status.max_flows) == (3, 2 * 4095)
        assert state.status.num_connected_nodes.value == 2
        assert list(state.status.unavailable_nodes) == ["n9"]
        async with channel(here.relay, "", None) as connected:
            stub = observer_pb2_grpc.ObserverStub(connected)  # type: ignore[no-untyped-call]
            nodes = (await stub.GetNodes(observer_pb2.GetNodesRequest())).nodes
            assert [(n.name, relay_pb2.NodeState.Name(n.state)) for n in nodes] == [
                ("n1", "NODE_CONNECTED"),
                ("n2", "NODE_CONNECTED"),
                ("n9", "NODE_UNAVAILABLE"),
            ]
            namespaces = (await stub.GetNamespaces(observer_pb2.GetNamespacesRequest())).namespaces
            assert [one.namespace for one in namespaces] == ["default"]


async def test_a_relay_without_nodes_is_not_healthy(tmp_path: Path) -> None:
    async with cluster(tmp_path, missing=("n9",)) as here, channel(here.relay, "", None) as connected:
        stub = health_pb2_grpc.HealthStub(connected)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service="hubble.server.Observer"))
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_node_with_tls_is_not_asked_without_and_the_other_way_round(tmp_path: Path) -> None:
    with pytest.raises(RelayError, match=r"unexpected TLS ServerName n1\.default for 10\.0\.0\.1:4244"):
        channel("10.0.0.1:4244", "n1.default", None)

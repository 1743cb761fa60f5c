"""The stock hubble-relay, where HUBBLE_RELAY names it, over nodes of ours: by peer service, plainly and with mTLS."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from observer import observer_pb2

from flows.client import ClientError, ask_namespaces, ask_nodes, ask_status, observe
from flows.observer import Observer
from flows.peers import PeerBook, PeerNode, server_name
from flows.rpc.server import Server
from flows.rpc.tls import ServerTls, TlsFiles
from flows.server import start
from tests.agent.test_relay import free_port
from tests.flows.certificates import Authority
from tests.flows.make import Galaxy, drop
from tests.flows.relay.test_relay import states, until

RELAY = os.environ.get("HUBBLE_RELAY", "")
pytestmark = pytest.mark.skipif(not RELAY, reason="needs the stock relay: HUBBLE_RELAY=path")
NODES = ("n1", "n2", "n3.example.org")
ALL = observer_pb2.GetFlowsRequest()


@dataclass
class Cluster:
    """Nodes by name, and how to reach the relay."""

    relay: str
    observers: dict[str, Observer]
    servers: dict[str, Server]
    book: PeerBook


@asynccontextmanager
async def cluster(tmp_path: Path, authority: Authority | None = None) -> AsyncIterator[Cluster]:
    tls = None
    if authority is not None:
        shown = authority.sign("nodes", "*.default.hubble-grpc.cilium.io")
        tls = ServerTls(TlsFiles(*shown, (authority.certificate,)), print)
    book = PeerBook(
        PeerNode(name, f"127.0.0.1:{free_port()}", server_name(name, "default") if tls else "") for name in NODES
    )
    observers = {name: Observer(lambda name=name: Galaxy(node_name=name), version="0.1.0") for name in NODES}  # type: ignore[misc]
    servers = {name: await start(observers[name], [book[name].address], book, tls) for name in NODES}
    port = free_port()
    words = ["--peer-service", book["n1"].address, "--listen-address", f"127.0.0.1:{port}", "--gops=false"]
    words += ["--retry-timeout", "1s", "--dial-timeout", "2s"]
    words += await _tls_words(authority)
    process = await asyncio.create_subprocess_exec(
        RELAY, "serve", *words, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield Cluster(f"127.0.0.1:{port}", observers, servers, book)
    finally:
        process.terminate()
        await process.wait()
        for server in servers.values():
            await server.stop(None)


async def _tls_words(authority: Authority | None) -> list[str]:
    """Towards the nodes only: old relays (1.14) offer no ALPN, and no client of today takes that. The options had other
    names then."""
    if authority is None:
        return ["--disable-server-tls", "--disable-client-tls"]
    asked = await asyncio.create_subprocess_exec(RELAY, "serve", "--help", stdout=asyncio.subprocess.PIPE)
    words = (await asked.communicate())[0].decode()
    option = "--tls-hubble-client" if "--tls-hubble-client-cert-file" in words else "--tls-client"
    certificate, key = authority.sign("relay", "*.hubble-relay.cilium.io")
    trusted = ["--tls-hubble-server-ca-files", str(authority.certificate)]
    return ["--disable-server-tls", *trusted, f"{option}-cert-file", str(certificate), f"{option}-key-file", str(key)]


async def connected(relay: str, number: int) -> observer_pb2.ServerStatusResponse:
    """The relay's status once so many nodes are connected."""
    async with asyncio.timeout(20):
        while True:
            try:
                status = (await ask_status(relay)).status
                if status is not None and status.num_connected_nodes.value == number:
                    return status
            except ClientError:
                pass
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "mtls"])
async def test_flows_of_all_nodes_are_one_stream_in_order_of_time(tmp_path: Path, secure: bool) -> None:
    authority = Authority(tmp_path / "authority") if secure else None
    async with cluster(tmp_path, authority) as here:
        status = await connected(here.relay, len(NODES))
        assert (status.num_unavailable_nodes.value, list(status.unavailable_nodes)) == (0, [])
        for number in range(20):
            for observer in here.observers.values():
                observer.packets([drop(source_port=1 + number)])
        responses = [r async for r in observe(here.relay, ALL)]
        assert states(responses)[0][0] == "NODE_CONNECTED"
        assert sorted(states(responses)[0][1]) == sorted(NODES)
        flows = [r for r in responses if r.HasField("flow")]
        assert len(flows) == 60
        times = [r.time.ToNanoseconds() for r in flows]
        assert times == sorted(times)
        assert {r.node_name for r in flows} == set(NODES)
        filtered = observer_pb2.GetFlowsRequest(whitelist=[{"source_port": ["7"]}, {"source_port": ["8"]}], number=1)
        assert len([r async for r in observe(here.relay, filtered) if r.HasField("flow")]) == len(NODES)
        assert sorted(node.name for node in (await ask_nodes(here.relay)).nodes) == sorted(NODES)
        with suppress(ClientError):  # old relays (1.14) do not have it
            assert [one.namespace for one in (await ask_namespaces(here.relay)).namespaces] == ["default"]


async def test_followers_of_the_stock_relay_see_nodes_go_and_come(tmp_path: Path) -> None:
    async with cluster(tmp_path) as here, asyncio.timeout(60), asyncio.TaskGroup() as group:
        await connected(here.relay, len(NODES))
        seen: list[observer_pb2.GetFlowsResponse] = []

        async def follow() -> None:
            async for response in observe(here.relay, observer_pb2.GetFlowsRequest(follow=True)):
                seen.append(response)

        following = group.create_task(follow())
        try:
            await until(lambda: bool(seen))
            here.observers["n2"].packets([drop()])
            await until(lambda: seen[-1].node_name == "n2")
            address = here.book["n2"].address
            await here.servers["n2"].stop(None)
            assert list((await connected(here.relay, 2)).unavailable_nodes) == ["n2"]
            here.servers["n2"] = await start(here.observers["n2"], [address])
            await connected(here.relay, 3)
            here.observers["n3.example.org"].packets([drop()])
            await until(lambda: seen[-1].node_name == "n3.example.org")
            while ("NODE_ERROR", ["n2"]) not in states(seen):  # it tells of errors every ten seconds
                await asyncio.sleep(0.1)
        finally:
            following.cancel()


async def test_filters_that_we_refuse_are_told_through_the_relay(tmp_path: Path) -> None:
    async with cluster(tmp_path) as here:
        await connected(here.relay, len(NODES))
        wrong = observer_pb2.GetFlowsRequest(whitelist=[{"protocol": ["gopher"]}])
        told = [r.node_status.message async for r in observe(here.relay, wrong) if r.HasField("node_status")]
        assert any('unknown protocol: "gopher"' in message for message in told)

"""Who is told of which nodes, over the real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc.aio
from observer import observer_pb2, observer_pb2_grpc
from peer import peer_pb2, peer_pb2_grpc

from flows.observer import Observer
from flows.peers import PeerBook, PeerNode, server_name
from flows.server import start
from tests.flows.make import Galaxy

N1, N2 = PeerNode("n1", "10.0.0.1:4244"), PeerNode("n2", "[fd00::2]:4244", "n2.default.hubble-grpc.cilium.io")
Told = tuple[str, str, str, str]


@asynccontextmanager
async def told(folder: Path, book: PeerBook) -> AsyncIterator[AsyncIterator[Told]]:
    """What a client hears of the nodes in the book."""
    target = f"unix://{folder}/h.sock"
    server = await start(Observer(Galaxy, version="0.1.0"), [target], book)

    async def hear(channel: grpc.aio.Channel) -> AsyncIterator[Told]:
        stub = peer_pb2_grpc.PeerStub(channel)  # type: ignore[no-untyped-call]
        async for one in stub.Notify(peer_pb2.NotifyRequest()):
            yield peer_pb2.ChangeNotificationType.Name(one.type), one.name, one.address, one.tls.server_name

    try:
        async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(10):
            yield hear(channel)
    finally:
        await server.stop(None)


async def test_every_node_is_told_and_then_what_changes(tmp_path: Path) -> None:
    book = PeerBook([N2, N1])
    async with told(tmp_path, book) as news:
        assert await anext(news) == ("PEER_ADDED", "n1", "10.0.0.1:4244", "")
        assert await anext(news) == ("PEER_ADDED", "n2", "[fd00::2]:4244", "n2.default.hubble-grpc.cilium.io")
        book.update([N1, N2])
        book.update([PeerNode("n1", "10.0.0.9:4244"), PeerNode("n3", "10.0.0.3:4244")])
        assert await anext(news) == ("PEER_DELETED", "n2", "[fd00::2]:4244", "n2.default.hubble-grpc.cilium.io")
        assert await anext(news) == ("PEER_UPDATED", "n1", "10.0.0.9:4244", "")
        assert await anext(news) == ("PEER_ADDED", "n3", "10.0.0.3:4244", "")


async def test_a_node_says_of_itself_what_its_peers_know(tmp_path: Path) -> None:
    target = f"unix://{tmp_path}/h.sock"
    itself = PeerNode("n1", "10.0.0.1:4244", "n1.default.hubble-grpc.cilium.io")
    server = await start(Observer(Galaxy, version="0.1.0"), [target], PeerBook([itself]))
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            stub = observer_pb2_grpc.ObserverStub(channel)  # type: ignore[no-untyped-call]
            (node,) = (await stub.GetNodes(observer_pb2.GetNodesRequest())).nodes
    finally:
        await server.stop(None)
    assert (node.address, node.tls.enabled, node.tls.server_name) == (itself.address, True, itself.server_name)


def test_names_of_servers_have_no_more_levels_than_a_wildcard_spans() -> None:
    assert server_name("n1.example.com", "east.1") == "n1-example-com.east-1.hubble-grpc.cilium.io"

"""Nodes, namespaces and peers in hubble's words; the texts are what hubble 1.19.4 prints of the same answers."""

from __future__ import annotations

import asyncio
import os

import pytest
from observer import observer_pb2
from peer import peer_pb2
from relay import relay_pb2

from flows.listing import namespaces_text, nodes_text, peer_text
from flows.rpc.methods import answering
from flows.rpc.server import Server

NODES = observer_pb2.GetNodesResponse(
    nodes=[
        observer_pb2.Node(name="n2", state=relay_pb2.NODE_UNAVAILABLE, address="10.0.0.2:4244"),
        observer_pb2.Node(
            name="galaxy/n1",
            version="deflector v0.1.0",
            address="10.0.0.1:4244",
            state=relay_pb2.NODE_CONNECTED,
            tls=observer_pb2.TLS(enabled=True, server_name="n1.galaxy.hubble-grpc.cilium.io"),
            uptime_ns=3_725_400_000_000,
            num_flows=1234,
            max_flows=4095,
            seen_flows=100_000,
        ),
    ]
)
NAMESPACES = observer_pb2.GetNamespacesResponse(
    namespaces=[
        observer_pb2.Namespace(namespace="default"),
        observer_pb2.Namespace(cluster="galaxy", namespace="empire"),
    ]
)
RECORDED = {
    ("nodes", "table"): """\
NAME        STATUS        AGE      FLOWS/S   CURRENT/MAX-FLOWS
galaxy/n1   Connected     1h2m5s   26.85     1234/4095 ( 30.13%)
n2          Unavailable   N/A      N/A       N/A
""",
    ("nodes", "wide"): """\
NAME        STATUS        AGE      FLOWS/S   CURRENT/MAX-FLOWS     VERSION            ADDRESS         TLS
galaxy/n1   Connected     1h2m5s   26.85     1234/4095 ( 30.13%)   deflector v0.1.0   10.0.0.1:4244   Enabled
n2          Unavailable   N/A      N/A       N/A                   N/A                10.0.0.2:4244   N/A
""",
    ("nodes", "json"): """\
[
  {
    "name": "galaxy/n1",
    "version": "deflector v0.1.0",
    "address": "10.0.0.1:4244",
    "state": "NODE_CONNECTED",
    "tls": {
      "enabled": true,
      "server_name": "n1.galaxy.hubble-grpc.cilium.io"
    },
    "uptime_ns": "3725400000000",
    "num_flows": "1234",
    "max_flows": "4095",
    "seen_flows": "100000"
  },
  {
    "name": "n2",
    "address": "10.0.0.2:4244",
    "state": "NODE_UNAVAILABLE"
  }
]
""",
    ("namespaces", "table"): "NAMESPACE\ndefault\nempire\n",
    ("namespaces", "wide"): "NAMESPACE   CLUSTER\ndefault\nempire   galaxy\n",
    ("namespaces", "json"): """\
[
  {
    "namespace": "default"
  },
  {
    "cluster": "galaxy",
    "namespace": "empire"
  }
]
""",
}


@pytest.mark.parametrize(("what", "output"), RECORDED)
def test_lists_are_printed_as_recorded(what: str, output: str) -> None:
    text = nodes_text(NODES.nodes, output) if what == "nodes" else namespaces_text(NAMESPACES.namespaces, output)
    assert text == RECORDED[what, output]


def test_peers_are_a_line_each() -> None:
    news = peer_pb2.ChangeNotification(name="n1", address="10.0.0.1:4244", type=peer_pb2.PEER_ADDED)
    assert peer_text(news) == "PEER_ADDED   10.0.0.1:4244 n1\n"
    news.tls.server_name = "n1.default.hubble-grpc.cilium.io"
    assert peer_text(news) == "PEER_ADDED   10.0.0.1:4244 n1 (TLS.ServerName: n1.default.hubble-grpc.cilium.io)\n"


@pytest.mark.skipif("HUBBLE_CLI" not in os.environ, reason="needs the stock hubble: HUBBLE_CLI=path")
async def test_recordings_are_what_hubble_prints() -> None:
    async def nodes() -> observer_pb2.GetNodesResponse:
        return NODES

    async def namespaces() -> observer_pb2.GetNamespacesResponse:
        return NAMESPACES

    methods = {"/observer.Observer/GetNodes": nodes, "/observer.Observer/GetNamespaces": namespaces}
    server = Server({path: answering(method) for path, method in methods.items()})
    await server.listen("127.0.0.1:0")
    try:
        for (what, output), recorded in RECORDED.items():
            process = await asyncio.create_subprocess_exec(
                *(os.environ["HUBBLE_CLI"], "list", what, "-o", output, "--server", f"127.0.0.1:{server.ports[0]}"),
                stdout=asyncio.subprocess.PIPE,
                env={"HOME": "/nonexistent"},
            )
            async with asyncio.timeout(20):
                out, _ = await process.communicate()
            assert out.decode() == recorded
    finally:
        await server.stop(None)

"""The stock backend of Hubble UI, where HUBBLE_UI_BACKEND names it, on our relay and straight on a node of ours."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from flow import flow_pb2

from flows.observer import Observer
from flows.server import start
from tests.agent.test_relay import free_port
from tests.flows.hubble_ui import FLOWS, LINK, SERVICE, Page, page
from tests.flows.make import PODS, Galaxy, denied, drop, exchange, message
from tests.flows.relay.test_relay import cluster

BACKEND = os.environ.get("HUBBLE_UI_BACKEND", "")
pytestmark = pytest.mark.skipif(not BACKEND, reason="needs the stock backend: HUBBLE_UI_BACKEND=path")
KIND = {"kind": "Namespace", "apiVersion": "v1"}
NAMESPACE = {
    **KIND,
    "metadata": {"name": "default", "uid": "1", "resourceVersion": "1"},
    "status": {"phase": "Active"},
}
LISTED = {"kind": "NamespaceList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}}
END = {**KIND, "metadata": {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}}
PATIENCE = 15.0  # seconds: it asks for the status every five


class Kubernetes(http.server.BaseHTTPRequestHandler):
    """An API server with one namespace, of which there is never any news."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if "watch=" not in self.path:
            body = json.dumps({**LISTED, "items": [NAMESPACE]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if "sendInitialEvents=true" in self.path:
            for event in ({"type": "ADDED", "object": NAMESPACE}, {"type": "BOOKMARK", "object": END}):
                line = json.dumps(event).encode() + b"\n"
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
        threading.Event().wait(PATIENCE * 2)

    def log_message(self, *_: Any) -> None:
        return


@contextmanager
def kubernetes(home: Path) -> Iterator[None]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Kubernetes)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
    context = {"name": "here", "context": {"cluster": "here", "user": ""}}
    config = {"apiVersion": "v1", "kind": "Config", "clusters": [there], "contexts": [context]}
    (home / ".kube").mkdir(parents=True)
    (home / ".kube" / "config").write_text(json.dumps(config | {"current-context": "here"}))
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@asynccontextmanager
async def backend(tmp_path: Path, target: str) -> AsyncIterator[int]:
    """The backend at work on this server of flows; its port."""
    port = free_port()
    with kubernetes(tmp_path / "home"):
        env = {"HOME": str(tmp_path / "home"), "FLOWS_API_ADDR": target, "EVENTS_SERVER_PORT": str(port)}
        process = await asyncio.create_subprocess_exec(
            BACKEND, env=env, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(PATIENCE):
                while not await listens(port):
                    await asyncio.sleep(0.05)
            yield port
        finally:
            process.terminate()
            await process.wait()


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


def service_map(port: int, wanted: int) -> tuple[set[tuple[str, str, int, int]], list[Any]]:
    """Links between cards (from, to, port, verdict) and flows that a page gets; `wanted` flows end it.

    A card stands for an identity; it is called here by a pod that has it.
    """
    request = page["GetEventsRequest"](event_types=[FLOWS, SERVICE, LINK])
    request.whitelist.add().flow_filter.reply.append(False)
    request.blacklist.add().flow_filter.source_label.append("reserved:unknown")
    request.blacklist.add().flow_filter.destination_label.append("reserved:unknown")
    cards, links, flows = set[str](), set[tuple[str, str, int, int]](), list[Any]()
    for body in Page(port, "service-map-stream", request.SerializeToString()).bodies(PATIENCE):
        for event in page["GetEventsResponse"].FromString(body).events:
            flows += event.flows.flows
            if event.HasField("service_state"):
                cards.add(event.service_state.service.id)
            if event.HasField("service_link_state"):
                link = event.service_link_state.service_link
                links.add((link.source_id, link.destination_id, link.destination_port, link.verdict))
        if len(flows) >= wanted:
            break
    assert cards == {end for link in links for end in link[:2]}
    pods = {str(pod.identity): pod.pod_name for pod in PODS.values()}
    return {(pods[a], pods[b], port, verdict) for a, b, port, verdict in links}, flows


def control(port: int) -> tuple[set[str], Any]:
    """Namespaces, and the first status that tells of nodes."""
    namespaces: set[str] = set()
    for body in Page(port, "control-stream").bodies(PATIENCE):
        told = page["GetControlStreamResponse"].FromString(body)
        namespaces |= {state.namespace.name for state in told.namespaces.namespaces}
        if told.notification.HasField("status") and namespaces:
            return namespaces, told.notification.status
    raise AssertionError("the backend tells no status")


async def test_the_service_map_of_a_cluster_behind_our_relay(tmp_path: Path) -> None:
    async with cluster(tmp_path, "n1", "n2") as here, backend(tmp_path, here.relay) as port:
        here.observers["n1"].access_log(message(*exchange(), denied()))
        here.observers["n2"].packets([drop()])
        links, flows = await asyncio.to_thread(service_map, port, 3)
        assert links == {
            ("tiefighter", "deathstar-1", 80, flow_pb2.FORWARDED),
            ("tiefighter", "deathstar-1", 80, flow_pb2.DROPPED),
            ("xwing", "deathstar-1", 80, flow_pb2.DROPPED),
        }
        assert {flow.node_name for flow in flows} == {"n1", "n2"}
        assert all(not flow.is_reply.value for flow in flows)
        namespaces, status = await asyncio.to_thread(control, port)
        assert namespaces == {"default"}
        assert sorted(node.name for node in status.nodes.nodes) == ["n1", "n2"]
        assert status.server_status.num_connected_nodes.value == 2


async def test_a_single_node_needs_no_relay(tmp_path: Path) -> None:
    observer = Observer(Galaxy, version="0.1.0")
    target = f"unix://{tmp_path}/h.sock"
    server = await start(observer, [target])
    try:
        async with backend(tmp_path, target) as port:
            observer.access_log(message(*exchange(), denied()))
            links, flows = await asyncio.to_thread(service_map, port, 2)
            assert {verdict for *_, verdict in links} == {flow_pb2.FORWARDED, flow_pb2.DROPPED}
            assert len(flows) == 2
            _, status = await asyncio.to_thread(control, port)
            assert [node.name for node in status.nodes.nodes] == ["n1"]
    finally:
        await server.stop(None)

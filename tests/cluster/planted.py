"""A galaxy's objects at an API server: its manifests, as kubelets and controllers would have made them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import yaml

from agent.cluster import resources
from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError
from agent.cluster.resources import Resource
from conformance import netns
from conformance.galaxy import NODE, Galaxy

PORT = 6443  # in the node's network namespace
KINDS = {found.kind: found for found in vars(resources).values() if isinstance(found, Resource)}


def objects(made: Galaxy, node_name: str) -> Iterator[tuple[Resource, dict[str, Any]]]:
    """Who there is in the galaxy; its pods are on the node of that name."""
    here = {(pod.namespace, pod.name) for pod in made.blueprint.local_pods}
    for path in sorted(made.manifests.root.glob("*.yaml")):
        for raw in yaml.safe_load_all(path.read_text()):
            meta = raw["metadata"]
            if raw["kind"] not in ("Namespace", "Pod", "Node"):
                continue  # a real server gives services addresses of its own
            if raw["kind"] == "Pod":
                is_here = (meta.get("namespace", "default"), meta["name"]) in here
                meta.pop("ownerReferences", None)  # there is no such owner, and a real server collects who has none
                raw["spec"]["nodeName"] = node_name if is_here else f"{node_name}-other"
                for container in raw["spec"].setdefault("containers", [{"name": "c"}]):
                    container.setdefault("image", "none")
            yield KINDS[raw["kind"]], raw


async def write(api: ApiServer, resource: Resource, raw: dict[str, Any]) -> None:
    """Make it, or make it like this; its status too."""
    namespace = raw["metadata"].get("namespace") or ("default" if resource.namespaced else "")
    body = {**raw, "metadata": {**raw["metadata"], **({"namespace": namespace} if namespace else {})}}
    try:
        await api.create(resource, namespace, body)
    except ApiError as error:
        if not error.is_taken:
            raise
    if "status" in raw:
        change = {"status": raw["status"]}
        await api.patch(resource, namespace, raw["metadata"]["name"], change, subresource="status")


@asynccontextmanager
async def planted(api: ApiServer, made: Galaxy, node_name: str) -> AsyncIterator[None]:
    """The galaxy's objects are there for the length of the block."""
    there: list[tuple[Resource, dict[str, Any]]] = []
    try:
        for resource, raw in objects(made, node_name):
            await write(api, resource, raw)
            there.append((resource, raw["metadata"]))
        yield
    finally:
        for resource, meta in reversed(there):
            if resource is resources.NAMESPACES and meta["name"] == "default":
                continue
            namespace = meta.get("namespace", "default")
            try:
                await api.delete(resource, namespace if resource.namespaced else "", meta["name"], grace=0)
            except ApiError as error:
                if not error.is_missing:
                    raise


@asynccontextmanager
async def reachable(api: ApiServer, made: Galaxy) -> AsyncIterator[str]:
    """The server's address as seen from the galaxy's node, which has no way out: what comes there is carried over."""
    host, _, port = api.access.server.partition("//")[2].partition(":")
    listener = netns.socket_in(made.namespace(NODE), socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", PORT))

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there_reader, there_writer = await asyncio.open_connection(host, int(port))
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(carry(reader, there_writer), carry(there_reader, writer))

    server = await asyncio.start_server(meet, sock=listener)
    scheme = api.access.server.partition("//")[0]
    try:
        yield f"{scheme}//127.0.0.1:{PORT}"
    finally:
        server.close()

"""An API server in this process, as far as agents need one: lists by pages, watches with bookmarks, 410, conflicts, the
status subresource, server-side apply. Held against a real kube-apiserver by tests/cluster/test_contract.py.

What it does not do: schemas (but for pruning of named fields), admission, defaulting, RBAC, field ownership beyond
whole fields. `faults` make it a bad one.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from agent.cluster import resources
from agent.cluster.resources import Resource

Raw = dict[str, Any]
KINDS = tuple(found for found in vars(resources).values() if isinstance(found, Resource))
WITH_STATUS = {"Pod", "Node", "Service", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"}
PRUNED = {"CiliumIdentity": {"security-labels"}, "CiliumEndpoint": {"status"}}  # what their schemas name


class Refusal(Exception):
    """Answered as a Status object."""

    def __init__(self, code: int, reason: str, message: str, retry_after: int = 0) -> None:
        self.status = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
            **({"details": {"retryAfterSeconds": retry_after}} if retry_after else {}),
        }
        self.code = code


@dataclass(frozen=True)
class Change:
    version: int
    type: str
    resource: Resource
    now: Raw
    before: Raw | None


@dataclass
class Faults:
    """What goes wrong. `cut_watches`: seconds after which each watch's connection is cut; `torn`: with half an event
    written before; `absent`: kinds (plural) that it does not have; `refuse`: what it says instead, by "list", "watch"
    or a method; `gone_as_status`: says 410 by HTTP and not in the stream; `slow`: seconds before any answer."""

    cut_watches: float | None = None
    torn: bool = False
    absent: set[str] = field(default_factory=set)
    refuse: dict[str, Refusal] = field(default_factory=dict)
    gone_as_status: bool = False
    slow: float = 0.0


class ApiServerFake:
    """The store and its HTTP side. Changes may be made by HTTP, or by `put` and `remove`."""

    def __init__(self, *, bookmark_seconds: float = 60.0, history: int = 10_000, token: str = "") -> None:
        self.faults = Faults()
        self.requests: list[tuple[str, str]] = []  # method and what it was about
        self.url = ""
        self._bookmark_seconds = bookmark_seconds
        self._token = token
        self._objects: dict[Resource, dict[tuple[str, str], Raw]] = {kind: {} for kind in KINDS}
        self._version = 1
        self._oldest = 0  # versions up to this one are forgotten
        self._history: deque[Change] = deque()
        self._history_max = history
        self._watchers: set[asyncio.Queue[Change | None]] = set()
        self._pages: dict[str, tuple[int, list[Raw]]] = {}
        self._owned: dict[tuple[Resource, str, str], dict[str, set[tuple[str, ...]]]] = {}

    # The store

    def put(self, resource: Resource, obj: Raw) -> Raw:
        """Make it so."""
        key = _key(resource, obj)
        before = self._objects[resource].get(key)
        obj = {"apiVersion": resource.api_version, "kind": resource.kind, **copy.deepcopy(obj)}
        if resource.kind in PRUNED:
            obj = {k: v for k, v in obj.items() if k in PRUNED[resource.kind] | {"apiVersion", "kind", "metadata"}}
        if resource is resources.CRDS:  # served at once
            obj["status"] = {"conditions": [{"type": "Established", "status": "True"}]}
        meta, old = obj["metadata"], (before or {}).get("metadata", {})
        if not resource.namespaced:
            meta.pop("namespace", None)
        meta["uid"] = old.get("uid") or f"uid-{self._version + 1}"
        meta["creationTimestamp"] = old.get("creationTimestamp") or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        moved = before is not None and _spec(before) != _spec(obj)
        meta["generation"] = old.get("generation", 1) + moved
        if before is not None and _plain(before) == _plain(obj):
            return before
        self._version += 1
        meta["resourceVersion"] = str(self._version)
        self._objects[resource][key] = obj
        self._tell(Change(self._version, "ADDED" if before is None else "MODIFIED", resource, obj, before))
        return obj

    def remove(self, resource: Resource, name: str, namespace: str = "") -> None:
        """Take it away."""
        before = self._objects[resource].pop((namespace if resource.namespaced else "", name))
        self._version += 1
        last = copy.deepcopy(before)
        last["metadata"]["resourceVersion"] = str(self._version)
        self._tell(Change(self._version, "DELETED", resource, last, before))

    def get(self, resource: Resource, name: str, namespace: str = "") -> Raw | None:
        """What is there."""
        return self._objects[resource].get((namespace if resource.namespaced else "", name))

    def all(self, resource: Resource) -> list[Raw]:
        """Everything of a kind."""
        return [obj for _, obj in sorted(self._objects[resource].items())]

    def compact(self) -> None:
        """Forget what happened: watches that go on from before are told so, and lists that are half read."""
        self._oldest = self._version
        self._history.clear()
        self._pages.clear()

    def cut_watches(self) -> None:
        """End every watch now."""
        for queue in self._watchers:
            queue.put_nowait(None)

    async def go_away(self) -> None:
        """Close the port, and cut every connection. `open` is the way back."""
        for site in tuple(self.runner.sites):
            await site.stop()
        for connection in tuple(self.runner.server.connections if self.runner.server is not None else ()):
            if connection.transport is not None:
                connection.transport.abort()

    @property
    def watching(self) -> int:
        return len(self._watchers)

    def _tell(self, change: Change) -> None:
        self._history.append(change)
        while len(self._history) > self._history_max:
            self._oldest = self._history.popleft().version
        for queue in self._watchers:
            queue.put_nowait(change)

    # HTTP

    @asynccontextmanager
    async def serve(self, port: int = 0, listener: socket.socket | None = None) -> AsyncIterator[ApiServerFake]:
        """Answer on a port of the loopback interface, or on a socket that is bound."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self.runner.setup()
        if listener is not None:
            await web.SockSite(self.runner, listener).start()
        else:
            await self.open(port)
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await self.go_away()
            await self.runner.cleanup()

    async def open(self, port: int) -> None:
        """Answer on this port of the loopback interface (any, if 0)."""
        await web.TCPSite(self.runner, "127.0.0.1", port, reuse_address=True).start()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if self.faults.slow:
            await asyncio.sleep(self.faults.slow)
        try:
            if self._token and request.headers.get("Authorization") != f"Bearer {self._token}":
                raise Refusal(401, "Unauthorized", "Unauthorized")
            if request.path == "/version":
                return web.json_response({"major": "1", "minor": "36", "gitVersion": "v1.36.0-fake"})
            resource, namespace, name, subresource = self._find(request.path)
            return await self._serve(request, resource, namespace, name, subresource)
        except Refusal as refusal:
            return web.json_response(refusal.status, status=refusal.code, headers=_retry_after(refusal))

    async def _serve(
        self, request: web.Request, resource: Resource, namespace: str, name: str, subresource: str
    ) -> web.StreamResponse:
        act = request.method.lower()
        if act == "get" and not name:
            act = "watch" if request.query.get("watch") in ("1", "true") else "list"
        self.requests.append((act, resource.plural))
        if refusal := self.faults.refuse.get(act):
            raise refusal
        if act == "watch":
            return await self._watch(request, resource, namespace)
        if act == "list":
            return self._list(request, resource, namespace)
        if act == "get":
            return web.json_response(self._existing(resource, namespace, name))
        if act == "delete":
            return self._delete(resource, namespace, name, await _body(request))
        write = {"post": self._create, "put": self._update, "patch": self._patch}[act]
        return write(request, resource, namespace, name, subresource, await _body(request))

    def _find(self, path: str) -> tuple[Resource, str, str, str]:
        for resource in KINDS:
            prefix = resource.path().removesuffix(resource.plural)
            if not path.startswith(prefix):
                continue
            parts = path.removeprefix(prefix).split("/")
            namespace = ""
            if len(parts) > 2 and not resource.namespaced and parts[2] != "status":
                continue
            if parts[0] == "namespaces" and len(parts) > 2 and resource.namespaced:
                namespace, parts = parts[1], parts[2:]
            if parts[0] == resource.plural and resource.plural not in self.faults.absent:
                name, subresource, *_ = [*parts[1:], "", ""]
                return resource, namespace, name, subresource
        raise Refusal(404, "NotFound", "the server could not find the requested resource")

    def _existing(self, resource: Resource, namespace: str, name: str) -> Raw:
        found = self.get(resource, name, namespace)
        if found is None:
            raise Refusal(404, "NotFound", f'{resource} "{name}" not found')
        return found

    # Reading

    def _list(self, request: web.Request, resource: Resource, namespace: str) -> web.Response:
        query = request.query
        limit = int(query.get("limit", "0"))
        if token := query.get("continue"):
            if token not in self._pages:
                raise Refusal(410, "Expired", "The provided continue parameter is too old to display a consistent list")
            version, items = self._pages.pop(token)
        else:
            wanted = _selector(request, namespace)
            version, items = self._version, [obj for obj in self.all(resource) if wanted(obj)]
        meta = {"resourceVersion": str(version)}
        if limit and len(items) > limit:
            token = base64.b64encode(f"{version}/{len(self._pages)}/{len(items)}".encode()).decode()
            self._pages[token] = (version, items[limit:])
            meta |= {"continue": token, "remainingItemCount": str(len(items) - limit)}
            items = items[:limit]
        bare = [{k: v for k, v in obj.items() if k not in ("kind", "apiVersion")} for obj in items]
        kinds = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        return web.json_response({**kinds, "metadata": meta, "items": bare if not _is_custom(resource) else items})

    async def _watch(self, request: web.Request, resource: Resource, namespace: str) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion") or 0)
        too_old = Refusal(410, "Expired", f"too old resource version: {since} ({self._oldest + 1})")
        is_too_old = bool(since) and since < self._oldest
        if is_too_old and self.faults.gone_as_status:
            raise too_old
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if is_too_old:
            await response.write(_event("ERROR", too_old.status))
            return response
        queue: asyncio.Queue[Change | None] = asyncio.Queue()
        for change in self._history:
            if change.version > since:
                queue.put_nowait(change)
        self._watchers.add(queue)
        try:
            await self._stream(request, response, queue, (resource, _selector(request, namespace)))
        except ConnectionError:
            pass
        finally:
            self._watchers.discard(queue)
        return response

    async def _stream(
        self,
        request: web.Request,
        response: web.StreamResponse,
        queue: asyncio.Queue[Change | None],
        about: tuple[Resource, Callable[[Raw], bool]],
    ) -> None:
        resource, wanted = about
        clock = asyncio.get_running_loop().time
        end = clock() + min(float(request.query.get("timeoutSeconds", 3600)), self.faults.cut_watches or 1e9)
        marks = request.query.get("allowWatchBookmarks") == "true"
        while (left := end - clock()) > 0:
            try:
                change = await asyncio.wait_for(queue.get(), min(left, self._bookmark_seconds))
            except TimeoutError:
                if marks and end - clock() > 0:
                    meta = {"metadata": {"resourceVersion": str(self._version)}}
                    kinds = {"kind": resource.kind, "apiVersion": resource.api_version}
                    await response.write(_event("BOOKMARK", {**kinds, **meta}))
                continue
            if change is None:
                break
            if change.resource == resource and (event := _seen(change, wanted)):
                await response.write(event)
        if self.faults.cut_watches or self.faults.torn:
            if self.faults.torn:
                await response.write(b'{"type":"ADDED","object":{"metadata":{"name":"half')
            if request.transport is not None:
                request.transport.abort()

    # Writing

    def _create(
        self, request: web.Request, resource: Resource, namespace: str, name: str, subresource: str, body: Raw
    ) -> web.Response:
        name = body["metadata"]["name"]
        if self.get(resource, name, namespace) is not None:
            raise Refusal(409, "AlreadyExists", f'{resource} "{name}" already exists')
        body["metadata"]["namespace"] = namespace
        if _has_status(resource):
            body.pop("status", None)
        return web.json_response(self.put(resource, body), status=201)

    def _update(
        self, request: web.Request, resource: Resource, namespace: str, name: str, subresource: str, body: Raw
    ) -> web.Response:
        before = self._existing(resource, namespace, name)
        _check_version(resource, before, body.get("metadata", {}).get("resourceVersion"))
        body["metadata"]["namespace"] = namespace  # the address says it
        return web.json_response(self.put(resource, _merged(resource, before, body, subresource)))

    def _patch(
        self, request: web.Request, resource: Resource, namespace: str, name: str, subresource: str, body: Any
    ) -> web.Response:
        if request.content_type.startswith("application/apply-patch"):
            return self._apply(request, resource, namespace, name, subresource, body)
        before = self._existing(resource, namespace, name)
        if request.content_type.startswith("application/json-patch"):
            after = _json_patched(before, body)
        else:
            after = _merge_patched(before, body)
        _check_version(resource, before, after["metadata"].get("resourceVersion"))
        return web.json_response(self.put(resource, _merged(resource, before, after, subresource)))

    def _apply(
        self, request: web.Request, resource: Resource, namespace: str, name: str, subresource: str, body: Raw
    ) -> web.Response:
        if not (manager := request.query.get("fieldManager")):
            raise Refusal(400, "BadRequest", "fieldManager is required for apply patch")
        before = self.get(resource, name, namespace)
        if before is None and subresource:
            raise Refusal(404, "NotFound", f'{resource} "{name}" not found')
        owners = self._owned.setdefault((resource, namespace, name), {})
        fields = {leaf for leaf in _leaves(body) if leaf[0] not in ("apiVersion", "kind")}
        after = copy.deepcopy(before or {"metadata": {"name": name, "namespace": namespace}})
        for leaf in owners.get(manager, set()) - fields:
            if not any(leaf in theirs for other, theirs in owners.items() if other != manager):
                _drop(after, leaf)
        owners[manager] = fields
        after = _deep_merged(after, body)
        if before is None and _has_status(resource):
            after.pop("status", None)
        merged = after if before is None else _merged(resource, before, after, subresource)
        return web.json_response(self.put(resource, merged), status=200 if before else 201)

    def _delete(self, resource: Resource, namespace: str, name: str, body: Raw) -> web.Response:
        before = self._existing(resource, namespace, name)
        wanted = body.get("preconditions", {})
        for field_name in ("uid", "resourceVersion"):
            if field_name in wanted and wanted[field_name] != before["metadata"][field_name]:
                raise Refusal(409, "Conflict", f"Precondition failed: {field_name}")
        self.remove(resource, name, namespace)
        return web.json_response({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"})


def _seen(change: Change, wanted: Callable[[Raw], bool]) -> bytes | None:
    """The event as a watch with a selector sees it: what no longer fits is deleted for it."""
    was, fits = change.before is not None and wanted(change.before), wanted(change.now)
    if change.type == "DELETED":
        return _event("DELETED", change.now) if was else None
    if fits:
        return _event("MODIFIED" if was else "ADDED", change.now)
    return _event("DELETED", change.now) if was else None


def _selector(request: web.Request, namespace: str) -> Callable[[Raw], bool]:
    fields = [part.split("=", 1) for part in request.query.get("fieldSelector", "").split(",") if part]
    labels = [part.split("=", 1) for part in request.query.get("labelSelector", "").split(",") if part]

    def wanted(obj: Raw) -> bool:
        meta = obj["metadata"]
        if namespace and meta.get("namespace") != namespace:
            return False
        return all(_at(obj, path.split(".")) == value for path, value in fields) and all(
            meta.get("labels", {}).get(key) == value for key, value in labels
        )

    return wanted


def _merged(resource: Resource, before: Raw, after: Raw, subresource: str) -> Raw:
    """What a write to the object, or to its status, leaves."""
    if subresource == "status":
        if not _has_status(resource):
            raise Refusal(404, "NotFound", "the server could not find the requested resource")
        return {**before, "status": after.get("status", {})}
    if _has_status(resource):
        return {**after, **({"status": before["status"]} if "status" in before else {})}
    return after


def _has_status(resource: Resource) -> bool:
    return resource.kind in WITH_STATUS


def _is_custom(resource: Resource) -> bool:
    return resource.group == resources.CILIUM  # their lists have kind and apiVersion in each item


def _check_version(resource: Resource, before: Raw, version: str | None) -> None:
    if version and version != before["metadata"]["resourceVersion"]:
        words = "the object has been modified; please apply your changes to the latest version and try again"
        raise Refusal(
            409, "Conflict", f'Operation cannot be fulfilled on {resource} "{before["metadata"]["name"]}": {words}'
        )


def _key(resource: Resource, obj: Raw) -> tuple[str, str]:
    meta = obj["metadata"]
    if resource.namespaced and not meta.get("namespace"):
        meta["namespace"] = "default"
    return (meta["namespace"] if resource.namespaced else "", meta["name"])


def _spec(obj: Raw) -> Raw:
    return {key: value for key, value in obj.items() if key not in ("metadata", "status")}


def _plain(obj: Raw) -> Raw:
    meta = {k: v for k, v in obj["metadata"].items() if k not in ("resourceVersion", "managedFields")}
    return {**obj, "metadata": meta}


def _at(obj: Raw, path: list[str]) -> Any:
    found: Any = obj
    for step in path:
        found = found.get(step) if isinstance(found, dict) else None
    return found


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield path


def _drop(obj: Raw, path: tuple[str, ...]) -> None:
    *way, last = path
    inner: Any = obj
    for step in way:
        inner = inner.get(step, {})
    inner.pop(last, None)


def _deep_merged(before: Any, after: Any) -> Any:
    if isinstance(before, dict) and isinstance(after, dict):
        return {**before, **{key: _deep_merged(before.get(key), value) for key, value in after.items()}}
    return copy.deepcopy(after)


def _merge_patched(before: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(before) if isinstance(before, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merge_patched(merged.get(key), value)
    return merged


def _json_patched(before: Raw, operations: list[Raw]) -> Raw:
    """RFC 6902: add, replace, remove and test, in mappings."""
    after = copy.deepcopy(before)
    for operation in operations:
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        inner: Any = after
        for step in way:
            inner = inner[step]
        if operation["op"] == "test" and inner.get(last) != operation["value"]:
            raise Refusal(422, "Invalid", f"testing value {operation['path']} failed")
        if operation["op"] == "remove":
            del inner[last]
        elif operation["op"] in ("add", "replace"):
            inner[last] = operation["value"]
    return after


def _event(kind: str, obj: Raw) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


async def _body(request: web.Request) -> Any:
    text = await request.text()
    return json.loads(text) if text else {}


def _retry_after(refusal: Refusal) -> dict[str, str]:
    seconds = refusal.status.get("details", {}).get("retryAfterSeconds")
    return {"Retry-After": str(seconds)} if seconds else {}

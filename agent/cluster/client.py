"""One API server, spoken to: read, list by pages, watch, create, apply, patch, delete. The only user of HTTP here.

Every request has a bound. What the server refuses is an ApiError, what is no answer is Unreachable; nothing is tried
again here: whoever asks knows whether that makes sense. Lists and watches are given undecoded: most of them is bytes
that nobody needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Final

import aiohttp
import msgspec

from agent.cluster.credentials import Access
from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.resources import Resource
from agent.errors import EnvironmentProblem

CONNECT_SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 30.0
LIST_SECONDS: Final = 60.0
# A server tells of the time by a bookmark each minute; two missing ones are a connection that is dead.
SILENCE_SECONDS: Final = 150.0
KEEPALIVE: Final = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
USER_TIMEOUT_MS: Final = 30_000
ANSWER_MAX: Final = 512 << 20  # bytes of one page: a list that the server does not cut, of 100,000 pods
PATCHES: Final = {
    "apply": "application/apply-patch+yaml",
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
}
Params = Mapping[str, str]


class ApiServer:
    """A session with one server. Use as an async context manager. `agent`: how we call ourselves."""

    def __init__(self, access: Access, agent: str = "deflector") -> None:
        self.access = access
        self._agent = agent
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ApiServer:
        connector = aiohttp.TCPConnector(limit=0, socket_factory=_socket, ttl_dns_cache=60)
        self._session = aiohttp.ClientSession(
            connector=connector,
            auto_decompress=True,
            trust_env=not self.access.proxy,
            # Lists are compressed only for whoever asks; on a cluster's own network that costs more than it saves.
            headers={"User-Agent": self._agent, "Accept": "application/json", "Accept-Encoding": "identity"},
            read_bufsize=1 << 18,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        """The object."""
        return _object(await self._ask("GET", resource.path(namespace, name)))

    async def list_page(self, resource: Resource, params: Params, namespace: str = "") -> bytes:
        """One page of a list, undecoded."""
        return await self._ask("GET", resource.path(namespace), params=params, seconds=LIST_SECONDS)

    async def create(self, resource: Resource, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make it. ApiError.is_taken: there is one of that name."""
        whole = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return _object(await self._ask("POST", resource.path(namespace), body=whole))

    async def update(
        self, resource: Resource, namespace: str, body: Mapping[str, Any], subresource: str = ""
    ) -> dict[str, Any]:
        """Replace it. With a resourceVersion in it, ApiError.is_conflict says that it was changed meanwhile."""
        whole = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        path = resource.path(namespace, body["metadata"]["name"], subresource)
        return _object(await self._ask("PUT", path, body=whole))

    async def apply(
        self, resource: Resource, namespace: str, body: Mapping[str, Any], *, manager: str, subresource: str = ""
    ) -> dict[str, Any]:
        """Make it so, whether it exists or not (server-side apply); the fields are ours from now on, whoever's they
        were."""
        whole = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        path = resource.path(namespace, body["metadata"]["name"], subresource)
        params = {"fieldManager": manager, "force": "true"}
        return _object(await self._ask("PATCH", path, params=params, body=whole, content_type=PATCHES["apply"]))

    async def patch(
        self, resource: Resource, namespace: str, name: str, changes: Any, *, how: str = "merge", subresource: str = ""
    ) -> dict[str, Any]:
        """Change what is named there; `how` is one of PATCHES."""
        path = resource.path(namespace, name, subresource)
        return _object(await self._ask("PATCH", path, body=changes, content_type=PATCHES[how]))

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str = "",
        version: str = "",
        grace: int | None = None,
    ) -> None:
        """Remove it, if it still is the one of that uid and that resourceVersion. `grace`: seconds that a pod has."""
        wanted = {key: value for key, value in (("uid", uid), ("resourceVersion", version)) if value}
        body: dict[str, Any] = {"preconditions": wanted} if wanted else {}
        if grace is not None:
            body["gracePeriodSeconds"] = grace
        await self._ask("DELETE", resource.path(namespace, name), body=body)

    async def ask(self, path: str) -> dict[str, Any]:
        """Whatever is at a path: /version, discovery."""
        return _object(await self._ask("GET", path))

    @asynccontextmanager
    async def watch(
        self, resource: Resource, params: Params, namespace: str = ""
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a watch's answer as they come, once the server has agreed to it. Ends when the server ends it;
        raises Unreachable when it is cut."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENCE_SECONDS)
        path = resource.path(namespace)
        async with self._request("GET", path, timeout, params={**params, "watch": "1"}) as response:
            if response.status != 200:
                raise _refusal(response, await response.content.read(1 << 16))
            yield self._pieces(response)

    async def _pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        try:
            async for piece in response.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(self._words(error)) from None

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: Any = None,
        content_type: str = "application/json",
        seconds: float = REQUEST_SECONDS,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS)
        sent = msgspec.json.encode(body) if body is not None else None
        async with self._request(
            method, path, timeout, params=params, body=sent, content_type=content_type
        ) as response:
            answer = bytearray()
            async for piece in self._pieces(response):
                answer += piece
                if len(answer) > ANSWER_MAX:
                    raise Unreachable(f"{self.access.server} answers with more than {ANSWER_MAX >> 20} MiB")
            if response.status >= 300:
                raise _refusal(response, bytes(answer))
            return bytes(answer)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        timeout: aiohttp.ClientTimeout,
        *,
        params: Params | None = None,
        body: bytes | None = None,
        content_type: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        if self._session is None:
            raise Unreachable("the session with the API server is closed")
        access = self.access
        headers = {"Content-Type": content_type} if body is not None else {}
        try:
            if authorization := await asyncio.to_thread(access.identity.authorization):
                headers["Authorization"] = authorization
            context = access.tls()
            response = await self._session.request(
                method,
                access.server + path,
                params=params,
                data=body,
                headers=headers,
                timeout=timeout,
                ssl=context if context is not None else True,
                server_hostname=access.server_name or None,
                proxy=access.proxy or None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            raise Unreachable(self._words(error)) from None
        except EnvironmentProblem as problem:
            raise Unreachable(str(problem)) from None
        try:
            if response.status == 401:
                access.identity.refused()
            yield response
        finally:
            response.release()

    def _words(self, error: BaseException) -> str:
        if isinstance(error, TimeoutError):
            return f"{self.access.server} did not answer in time"
        if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
            # aiohttp's own words name a Python object, asyncio's the address once more
            number, words = error.os_error.errno, error.os_error.strerror
            return f"{self.access.server}: cannot connect: {os.strerror(number) if number and number > 0 else words}"
        return f"{self.access.server}: {' '.join(str(error).split()) or type(error).__name__}"


def _refusal(response: aiohttp.ClientResponse, answer: bytes) -> ApiError:
    """What an answer that is no success says: a Status object, or whatever stands between us and the server."""
    with contextlib.suppress(ValueError):
        raw = json.loads(answer)
        if isinstance(raw, dict) and raw.get("kind") == "Status":
            error = ApiError.of_status(raw, response.status)
            error.retry_after = error.retry_after or _retry_after(response)
            return error
    words = " ".join(answer[:200].decode(errors="replace").split())
    return ApiError(response.status, response.reason or "", words, _retry_after(response))


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    written = response.headers.get("Retry-After", "")
    return float(written) if written.isdigit() else None


def _object(answer: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        found = None
    if not isinstance(found, dict):
        raise Unreachable("the answer is no object of an API server: is it one?")
    return found


def _socket(address: Any) -> socket.socket:
    """A socket that notices in half a minute that the other side has gone without a word."""
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, seconds in KEEPALIVE:
            made.setsockopt(socket.IPPROTO_TCP, option, seconds)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    except OSError:
        made.close()
        raise
    return made

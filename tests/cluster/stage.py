"""The API server of a test: the fake, or, with KUBECONFIG set (`make test-k8s`), a real one. Tests that take `cluster`
run on either, and so hold the fake to what the real one does."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from agent.cluster.client import ApiServer
from agent.cluster.credentials import Access, find_access
from agent.cluster.errors import ApiError
from agent.cluster.resources import CRDS, NAMESPACES
from tests.cluster.crds import NEEDED, definition
from tests.fakes.apiserver import ApiServerFake

IS_REAL = bool(os.environ.get("KUBECONFIG"))


@dataclass
class Cluster:
    """A server, our session with it, and a namespace of the test's own. `fake` is None where it is a real one."""

    api: ApiServer
    namespace: str
    fake: ApiServerFake | None = None

    def session(self) -> ApiServer:
        """One more session with the same server."""
        return ApiServer(self.api.access)


@asynccontextmanager
async def a_cluster(**options: float) -> AsyncIterator[Cluster]:
    """A server to work with; what is made in the namespace goes with it."""
    namespace = f"deflector-test-{uuid.uuid4().hex[:8]}"
    if IS_REAL:
        async with ApiServer(find_access()) as api:
            await _define(api)
            await api.create(NAMESPACES, "", {"metadata": {"name": namespace}})
            try:
                yield Cluster(api, namespace)
            finally:
                await api.delete(NAMESPACES, "", namespace)
        return
    async with ApiServerFake(**options).serve() as fake, ApiServer(Access(fake.url)) as api:  # type: ignore[arg-type]
        await api.create(NAMESPACES, "", {"metadata": {"name": namespace}})
        yield Cluster(api, namespace, fake)


async def _define(api: ApiServer) -> None:
    for resource in NEEDED:
        with suppress(ApiError):
            await api.create(CRDS, "", definition(resource))
    for resource in NEEDED:
        async with asyncio.timeout(20):
            while True:
                try:
                    await api.list_page(resource, {"limit": "1"})
                    break
                except ApiError as error:
                    if not error.is_missing and error.status != 503:
                        raise
                await asyncio.sleep(0.1)


async def until(holds: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.005)

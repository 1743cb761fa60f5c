"""A galaxy of this machine and the node in it, as a site. Touches the galaxy's manifests and its network namespaces."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from conformance.expectation import Answer
from conformance.galaxy import Galaxy
from conformance.http1 import LiveConnection
from conformance.manifests import policy_file, to_yaml
from conformance.node import Node
from conformance.probes import Call, ask
from conformance.scenario import Policy

FLOW_PATIENCE = 2.0  # seconds until an expected flow is seen by a follower; 0.25 is what is promised


class LocalSite:
    """One galaxy, one node."""

    flow_patience = FLOW_PATIENCE

    def __init__(self, galaxy: Galaxy, node: Node) -> None:
        self.galaxy, self.node = galaxy, node

    @property
    def place(self) -> Galaxy:
        return self.galaxy

    @property
    def flags(self) -> tuple[str, ...]:
        return self.node.flags

    async def ask(self, call: Call) -> Answer:
        return await ask(call)

    async def connect(self, call: Call) -> LiveConnection:
        return await LiveConnection.open(call.namespace, call.local, call.remote)

    def spell(self, call: Call) -> str:
        return str(call)

    async def keep(self, policies: Sequence[Policy]) -> None:
        self.node.refused.clear()
        folder = self.galaxy.manifests
        for name in set(folder.policies()) - {policy_file(policy.object) for policy in policies}:
            folder.remove(name)
        await self.apply(policies)

    async def apply(self, policies: Iterable[Policy]) -> None:
        for policy in policies:
            self.galaxy.manifests.write(policy_file(policy.object), to_yaml(policy.manifests))
        await self.node.enforced()

    async def remove(self, objects: Collection[str]) -> None:
        for name in objects:
            self.galaxy.manifests.remove(policy_file(name))
        await self.node.enforced()

    async def log_tail(self) -> list[str]:
        return self.node.log_tail()

"""The API server's side of a running node: what it is told, and what it tells, wired to the policy loop."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType

from agent.cluster.client import ApiServer
from agent.cluster.credentials import find_access
from agent.cluster.published import wanted
from agent.cluster.publisher import Publisher
from agent.cluster.queries import Following, IdentitySource
from agent.cluster.reporter import Reporter
from agent.cluster.source import ClusterSource
from agent.config import Config
from agent.node.policy_loop import Enforced
from agent.node.reporting import Reporting
from agent.supervise import Tasks
from policies.compiling.identity import Labels
from policies.events import ObjectEvent
from policies.ir import NodePolicy
from policies.world import World


class ClusterSide:
    """An async context manager: the session with the server. Raises EnvironmentProblem when none is known."""

    def __init__(self, config: Config) -> None:
        cluster = config.cluster
        assert cluster is not None
        self._node_name = config.node_name
        access = find_access(cluster.kubeconfig, cluster.context)
        self.server = ApiServer(access, f"deflector-agent/{config.node_name}")
        following = Following(config.node_name, IdentitySource(cluster.identity_source), config.quiet, config.hold)
        self.publisher = Publisher(self.server)
        self.reporter = Reporter(self.server, importlib.metadata.version("deflector"))
        self._reporting = Reporting(config.node_name, self.reporter)
        self.source = ClusterSource(self.server, following, self.publisher.endpoint_gone)

    async def __aenter__(self) -> ClusterSide:
        await self.server.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.server.__aexit__(kind, error, trace)

    def start(self, tasks: Tasks) -> None:
        """Follow the server, and tell it of this node's pods."""
        tasks.start("API server", self.source.run())
        tasks.start("publisher", self.publisher.run())
        tasks.start("report", self.reporter.run())

    def batches(self) -> AsyncIterator[Sequence[ObjectEvent]]:
        """What becomes of objects."""
        return self.source.batches()

    def enforced(self, world: World, node: NodePolicy, labels: Callable[[int], Labels]) -> None:
        """This is enforced now."""
        self.publisher.take(world, wanted(world, node, self._node_name, labels, self.source.uids))

    def report(self, enforced: Enforced) -> None:
        """So far this node is, for the status of policies."""
        self._reporting.take(enforced)

    @property
    def problems(self) -> list[str]:
        """What keeps other nodes from knowing of our pods, and people of what is enforced here."""
        return [words for words in (self.publisher.trouble, self.reporter.trouble) if words]

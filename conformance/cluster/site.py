"""Pods of a cluster as a site (conformance.site)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from conformance.blueprint import Blueprint
from conformance.cluster.askers import Askers, PodConnection
from conformance.cluster.policies import Policies
from conformance.expectation import Answer
from conformance.plain import HERE, Attempt
from conformance.probes import Call
from conformance.scenario import Policy

FLOW_PATIENCE = 5.0  # seconds until a flow is seen through the relay, which waits for the slowest node
LOG_TAIL = 15


@dataclass(frozen=True, slots=True)
class ClusterPlace:
    """Pods and services by the addresses that the cluster gave them. Nobody else is there."""

    blueprint: Blueprint

    def namespace(self, who: str) -> str:
        return HERE

    def address(self, who: str, family: int) -> str:
        return self.blueprint.pod(who).address(family)


class ClusterSite:
    """A claim, its pods, and the agent of their node."""

    flow_patience = FLOW_PATIENCE
    flags: tuple[str, ...] = ()

    def __init__(self, place: ClusterPlace, askers: Askers, policies: Policies) -> None:
        self.place = place
        self._askers, self._policies = askers, policies

    async def ask(self, call: Call) -> Answer:
        probe = call.probe
        attempt = Attempt(probe.protocol, call.local, call.remote, call.patience, probe.request, probe.icmp_type)
        asker = await self._askers.of(self.place.blueprint.pod(probe.source))
        return await asker.attempt(attempt)

    async def connect(self, call: Call) -> PodConnection:
        asker = await self._askers.of(self.place.blueprint.pod(call.probe.source))
        return await asker.open(call.local, call.remote)

    def spell(self, call: Call) -> str:
        return f"in pod {self.place.blueprint.pod(call.probe.source)}: {replace(call, namespace=HERE)}"

    async def keep(self, policies: Sequence[Policy]) -> None:
        await self._policies.keep(policies)

    async def apply(self, policies: Sequence[Policy]) -> None:
        await self._policies.apply(policies)

    async def remove(self, objects: Collection[str]) -> None:
        await self._policies.remove(objects)

    async def log_tail(self) -> list[str]:
        return await self._policies.agent.log(self._policies.kubectl, LOG_TAIL)

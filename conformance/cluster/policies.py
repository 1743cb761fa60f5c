"""Policies of a run at the API server, and the wait until the nodes that matter enforce them.

Of a CiliumNetworkPolicy a user reads that in its conditions. That a policy is gone, and that a NetworkPolicy is in
force, only the agent of the node can tell.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from conformance.cluster.claim import RUN_LABEL, Claim
from conformance.cluster.installed import Agent
from conformance.cluster.kubectl import Kubectl, KubectlFailure, Raw
from conformance.errors import EnvironmentFailure, NotEnforced
from conformance.scenario import Policy

ENFORCE_PATIENCE = 30.0  # seconds until a policy is enforced, and its conditions say so
POLL = 0.1  # seconds between two questions; asking takes longer than this
KINDS = "ciliumnetworkpolicies.cilium.io,networkpolicies.networking.k8s.io"
CONDITIONS = ("Valid", "Enforced")
WITH_CONDITIONS = "CiliumNetworkPolicy"
MISSING_KIND = "the server doesn't have a resource type"


@dataclass(slots=True)
class Policies:
    """What of the suite's policies is at the API server, by the name of the policy."""

    kubectl: Kubectl
    claim: Claim
    agent: Agent
    _held: dict[str, list[Raw]] = field(default_factory=dict)

    async def keep(self, policies: Sequence[Policy]) -> None:
        """These and no others."""
        wanted = {policy.object for policy in policies}
        await self._delete([name for name in self._held if name not in wanted])
        await self.apply(policies)

    async def apply(self, policies: Sequence[Policy]) -> None:
        """Make or change them; returns when that is enforced. Raises NotEnforced."""
        written = {policy.object: [self._ours(raw) for raw in policy.manifests] for policy in policies}
        gone = [
            raw for name, raws in written.items() for raw in self._held.get(name, []) if _name(raw) not in _names(raws)
        ]
        changed = [raw for name, raws in written.items() for raw in raws if raw not in self._held.get(name, [])]
        self._held |= written
        await self._forget(gone)
        try:
            await self.kubectl.apply(changed)
        except KubectlFailure as failure:
            raise NotEnforced(f"the API server does not take it: {failure.complaint}") from None
        await self._enforced()

    async def remove(self, objects: Collection[str]) -> None:
        """Take them away; returns when that is enforced. Raises NotEnforced."""
        await self._delete(objects)
        await self._enforced()

    async def _delete(self, objects: Collection[str]) -> None:
        await self._forget([raw for name in objects for raw in self._held.pop(name, [])])

    async def _forget(self, raws: Sequence[Raw]) -> None:
        if raws:
            await self.kubectl.delete(raws)

    def _ours(self, raw: Mapping[str, object]) -> Raw:
        made: Raw = {**raw}
        meta = dict(made["metadata"])
        made["metadata"] = {**meta, "labels": {**meta.get("labels", {}), RUN_LABEL: self.claim.run}}
        return made

    async def _enforced(self) -> None:
        deadline = time.monotonic() + ENFORCE_PATIENCE
        while why_not := await self._why_not():
            if time.monotonic() > deadline:
                raise NotEnforced(f"not enforced after {ENFORCE_PATIENCE:.0f} s: {why_not}")
            await asyncio.sleep(POLL)

    async def _why_not(self) -> str:
        """What is still missing; "" if nothing is."""
        there = await self._there()
        if undone := "; ".join(_undone(there)):
            return undone
        status = await self.agent.status(self.kubectl)
        if isinstance(status, str):
            return status
        wanted = {_name(raw): str(raw["metadata"]["generation"]) for raw in there}
        spaces = set(self.claim.spaces.values())
        enforced = {
            name: str(version).partition("/")[0]
            for name, version in status["enforced_policies"].items()
            if name.rpartition(" ")[2].partition("/")[0] in spaces
        }
        late = sorted(name for name in {*wanted, *enforced} if wanted.get(name) != enforced.get(name))
        problems = "; ".join(map(str, status["problems"])) or "none"
        return f"node {self.agent.node} is waiting for {', '.join(late)}; problems: {problems}" if late else ""

    async def _there(self) -> list[Raw]:
        if not any(self._held.values()):
            return []
        try:
            return await self.kubectl.items(KINDS, "--all-namespaces", "-l", self.claim.label)
        except KubectlFailure as failure:
            if MISSING_KIND in failure.complaint:
                raise EnvironmentFailure(f"{failure}: is the operator of Deflector running?") from None
            raise


def _undone(there: Sequence[Raw]) -> Iterator[str]:
    """Conditions that are not, or not yet, as they should be."""
    for raw in there:
        generation = raw["metadata"].get("generation")
        said = {one.get("type"): one for one in (raw.get("status") or {}).get("conditions") or ()}
        for kind in CONDITIONS if raw["kind"] == WITH_CONDITIONS else ():
            one = said.get(kind) or {}
            if one.get("status") != "True" or one.get("observedGeneration") != generation:
                words = " ".join(str(one.get(name) or "") for name in ("reason", "message")).strip()
                yield f"{_name(raw)} is not {kind}: {words or 'nobody has said so: is the operator running?'}"


def _name(raw: Raw) -> str:
    """As the agent's status names it."""
    return f"{raw['kind']} {raw['metadata']['namespace']}/{raw['metadata']['name']}"


def _names(raws: Sequence[Raw]) -> set[str]:
    return {_name(raw) for raw in raws}

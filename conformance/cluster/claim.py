"""The namespaces of a run: labelled as ours, renewed while we live, deleted at the end, swept when we are dead.

Everything that a run makes is in them, so nothing else has to be found again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from conformance.cluster.kubectl import Kubectl, KubectlFailure, Raw
from conformance.errors import EnvironmentFailure
from conformance.objects import namespace_object

OWNER_LABEL, OWNER = "app.kubernetes.io/managed-by", "deflector-conformance"
RUN_LABEL = "deflector.io/conformance-run"
RENEWED = "deflector.io/renewed"
RENEW_SECONDS = 30.0
DEAD_SECONDS = 300.0  # without being renewed; more than clocks of two machines are apart
DELETE_SECONDS = 120.0
DEFAULT = "default"  # the namespace of a suite that becomes that of the run

log = logging.getLogger("deflector.conformance")


@dataclass(frozen=True, slots=True)
class Claim:
    """The namespaces of a run: of each of the suite's, the one in the cluster."""

    run: str
    spaces: Mapping[str, str]

    @property
    def label(self) -> str:
        """Selects everything of this run."""
        return f"{RUN_LABEL}={self.run}"


def run_name() -> str:
    """A name for a run that nobody else has."""
    return f"{OWNER}-{secrets.token_hex(3)}"


@asynccontextmanager
async def claimed(kubectl: Kubectl, run: str, wanted: Mapping[str, Mapping[str, str]]) -> AsyncIterator[Claim]:
    """Sweep what dead runs left, make namespaces (with their labels), and delete them at the end, come what may."""
    await sweep(kubectl)
    claim = Claim(run, {name: run if name == DEFAULT else f"{run}-{name}" for name in (DEFAULT, *wanted)})
    await _refuse_strangers(kubectl, claim)
    try:
        await kubectl.apply([_space(claim, name, wanted.get(name, {})) for name in claim.spaces])
        async with asyncio.TaskGroup() as tasks:
            renewing = tasks.create_task(_renew(kubectl, claim))
            try:
                yield claim
            finally:
                renewing.cancel()
    finally:
        await _delete(kubectl, list(claim.spaces.values()))


async def sweep(kubectl: Kubectl) -> list[str]:
    """Delete the namespaces of runs that nobody renews any more; returns their names."""
    found = await kubectl.items("namespaces", "-l", f"{OWNER_LABEL}={OWNER}")
    dead = sorted(raw["metadata"]["name"] for raw in found if _age(raw) > DEAD_SECONDS and _is_whole(raw))
    if dead:
        await kubectl.run("delete", "namespaces", *dead, "--ignore-not-found", "--wait=false")
    return dead


async def _refuse_strangers(kubectl: Kubectl, claim: Claim) -> None:
    """What is in a namespace that we make goes with it: so it must not be there."""
    there = {raw["metadata"]["name"] for raw in await kubectl.items("namespaces")}
    taken = sorted(there & set(claim.spaces.values()))
    if taken:
        raise EnvironmentFailure(f"namespace {taken[0]} is there already: name another with --namespace")


def _space(claim: Claim, name: str, labels: Mapping[str, str]) -> Raw:
    made = namespace_object(claim.spaces[name], labels)
    made["metadata"]["labels"] |= {
        OWNER_LABEL: OWNER,
        RUN_LABEL: claim.run,
        "pod-security.kubernetes.io/enforce": "privileged",  # clients and servers use raw sockets
        "pod-security.kubernetes.io/warn": "privileged",
    }
    made["metadata"]["annotations"] = {RENEWED: _now()}
    return made


async def _renew(kubectl: Kubectl, claim: Claim) -> None:
    while True:
        await asyncio.sleep(RENEW_SECONDS)
        try:
            await kubectl.run("annotate", "--overwrite", "namespaces", *claim.spaces.values(), f"{RENEWED}={_now()}")
        except KubectlFailure as failure:
            log.warning("%s", failure)  # once missed is not dead


async def _delete(kubectl: Kubectl, names: Sequence[str]) -> None:
    words = ("delete", "namespaces", *names, "--ignore-not-found", f"--timeout={DELETE_SECONDS:.0f}s")
    try:
        await kubectl.run(*words, timeout=DELETE_SECONDS + 10)
    except KubectlFailure as failure:
        raise EnvironmentFailure(
            f"the namespaces {', '.join(names)} could not be deleted: {failure.complaint}; the next run tries again"
        ) from None


def _is_whole(raw: Raw) -> bool:
    return not raw["metadata"].get("deletionTimestamp")


def _age(raw: Raw) -> float:
    """Seconds since it was renewed last."""
    meta = raw["metadata"]
    for moment in ((meta.get("annotations") or {}).get(RENEWED), meta.get("creationTimestamp")):
        try:
            return (datetime.now(UTC) - datetime.fromisoformat(str(moment))).total_seconds()
        except (TypeError, ValueError):  # also of a time without zone
            continue
    return 0.0


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")

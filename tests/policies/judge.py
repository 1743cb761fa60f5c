"""What both judges say of one object: this project's reader, and what it knows of Cilium's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from policies.advising.advice import advise
from policies.reading.readers import read_object
from policies.rules import Policy

Findings = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Judged:
    """(path, reason) of what refuses the object here, of warnings, and of what refuses it in Cilium."""

    errors: Findings
    warnings: Findings
    by_cilium: Findings
    policy: Policy | None

    @property
    def valid(self) -> bool:
        return not self.errors

    @property
    def valid_in_cilium(self) -> bool:
        return not self.by_cilium


def judge(raw: dict[str, Any]) -> Judged:
    found = read_object(raw)
    policy = found.good if isinstance(found.good, Policy) else None
    warnings = [*found.warnings, *(advise(policy) if policy is not None else ())]
    everything = [*found.errors, *warnings]
    assert all("\n" not in str(finding) for finding in everything)
    return Judged(
        frozenset((f.path, f.reason) for f in found.errors),
        frozenset((f.path, f.reason) for f in warnings),
        frozenset((f.path, f.reason) for f in everything if f.by_cilium),
        policy,
    )


def cnp(spec: str, *, kind: str = "CiliumNetworkPolicy", namespace: str | None = "d") -> dict[str, Any]:
    """A policy with this spec, as YAML in flow style without the outer braces."""
    metadata = {"name": "p"} | ({} if namespace is None else {"namespace": namespace})
    return {
        "apiVersion": "cilium.io/v2",
        "kind": kind,
        "metadata": metadata,
        "spec": yaml.safe_load("{" + spec + "}"),
    }


def ccnp(spec: str) -> dict[str, Any]:
    return cnp(spec, kind="CiliumClusterwideNetworkPolicy", namespace=None)


def clause(body: str, where: str = "ingress") -> dict[str, Any]:
    """A policy with one entry in one of its lists."""
    return cnp(f"endpointSelector: {{}}, {where}: [{{{body}}}]")


def ports(body: str, where: str = "ingress") -> dict[str, Any]:
    """A policy with one entry of toPorts."""
    return clause(f"toPorts: [{{{body}}}]", where)

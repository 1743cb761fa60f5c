"""Clauses of policies -> the policy objects that flows name, with the labels that Cilium gives them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from flows.lookups import PolicyRef
from policies.types import Origin

_POLICY_LABEL: Final = "k8s:io.cilium.k8s.policy."
OURS: Final = "deflector"  # the kind of implicit rules, which are no objects


class PolicyRefs:
    """`logs`: what a clause wants said in the flows that it decides, by its origin."""

    def __init__(self, revision: int, logs: Mapping[Origin, str]) -> None:
        self._revision = revision
        self._logs = logs

    def of(self, origins: Iterable[Origin]) -> tuple[PolicyRef, ...]:
        """Each object once, sorted."""
        clauses: dict[tuple[str, str, str], list[Origin]] = {}
        for origin in sorted(origins):
            if origin.kind != OURS:
                clauses.setdefault((origin.kind, origin.namespace, origin.name), []).append(origin)
        return tuple(self._ref(named, deciding) for named, deciding in clauses.items())

    def _ref(self, named: tuple[str, str, str], clauses: list[Origin]) -> PolicyRef:
        kind, namespace, name = named
        labels = [f"{_POLICY_LABEL}derived-from={kind}", f"{_POLICY_LABEL}name={name}"]
        if namespace:
            labels.append(f"{_POLICY_LABEL}namespace={namespace}")
        logs = dict.fromkeys(self._log(clause) for clause in clauses)
        return PolicyRef(name, namespace, kind, tuple(sorted(labels)), self._revision, logs=tuple(filter(None, logs)))

    def _log(self, origin: Origin) -> str:
        """That of the clause that an HTTP rule is in, too."""
        path = origin.path.partition(".toPorts[")[0]
        clause = Origin(origin.kind, origin.namespace, origin.name, path)
        return self._logs.get(origin) or self._logs.get(clause, "")

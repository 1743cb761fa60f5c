"""What nobody uses any more: which CiliumIdentity may go, and when; which CiliumEndpoint is of no pod. Pure.

An identity goes in two steps, each after half of the grace time: a mark on the object, so that people and nodes can see
it coming, and its removal, if it is still the very object that was marked. Whoever takes it meanwhile is safe: a use
that shows in an endpoint takes the mark away, and a node whose number is removed under its feet makes the same object
again (policies.compiling.agreement), for the number follows from the labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from policies.objects import PodKey

MARK: Final = "deflector/unused-since"  # annotation
Raw = dict[str, Any]


class Step(Enum):
    """What to do with an identity."""

    MARK = "mark"
    UNMARK = "unmark"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Labelled:
    """An identity object. `labels`: as written, sorted; `created`: as the server says it."""

    number: str
    created: str
    uid: str
    version: str
    labels: tuple[str, ...]
    is_marked: bool

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Labelled:
        meta, labels = raw["metadata"], raw.get("security-labels")
        pairs = labels.items() if isinstance(labels, dict) else ()
        return cls(
            str(meta.get("name") or ""),
            str(meta.get("creationTimestamp") or ""),
            str(meta.get("uid") or ""),
            str(meta.get("resourceVersion") or ""),
            tuple(sorted(f"{key}={value}" if value else str(key) for key, value in pairs)),
            MARK in (meta.get("annotations") or {}),
        )


@dataclass(frozen=True, slots=True)
class Use:
    """Of whom an endpoint is: the number, and the labels, of which only one may be agreed on yet."""

    uid: str
    number: str
    labels: tuple[str, ...]

    @classmethod
    def of(cls, raw: Mapping[str, Any]) -> Use:
        status = raw.get("status")
        identity = status.get("identity") if isinstance(status, dict) else None
        identity = identity if isinstance(identity, dict) else {}
        labels = identity.get("labels")
        return cls(
            str(raw["metadata"].get("uid") or ""),
            str(identity.get("id") or ""),
            tuple(sorted(map(str, labels))) if isinstance(labels, list) else (),
        )


@dataclass(slots=True)
class IdentityGarbage:
    """`grace`: seconds from the last use to the removal. `sweep` says what to do now."""

    grace: float
    _unused: dict[str, float] = field(default_factory=dict)  # number -> since when, by our clock
    _marked: dict[str, float] = field(default_factory=dict)

    def sweep(
        self, identities: Mapping[PodKey, Labelled], uses: Mapping[PodKey, Use], now: float
    ) -> Iterator[tuple[Labelled, Step]]:
        """Every identity once; those that have nothing to do are left out."""
        numbers = {use.number for use in uses.values()}
        labels = {use.labels for use in uses.values()}
        known = {identity.number for identity in identities.values()}
        for book in (self._unused, self._marked):
            for gone in book.keys() - known:
                del book[gone]
        counting = _counting(identities)
        for identity in identities.values():
            is_agreed = counting[identity.labels] == identity.number and identity.labels in labels
            step = self._step(identity, is_agreed or identity.number in numbers, now)
            if step is not None:
                yield identity, step

    def _step(self, identity: Labelled, is_used: bool, now: float) -> Step | None:
        number = identity.number
        if is_used:
            self._unused.pop(number, None)
            self._marked.pop(number, None)
            return Step.UNMARK if identity.is_marked else None
        since = self._unused.setdefault(number, now)
        if not identity.is_marked:
            self._marked.pop(number, None)
            return Step.MARK if now - since >= self.grace / 2 else None
        marked = self._marked.setdefault(number, now)
        return Step.DELETE if now - marked >= self.grace / 2 else None


def _counting(identities: Mapping[PodKey, Labelled]) -> dict[tuple[str, ...], str]:
    """The number of each label set: of two, the older one (policies.compiling.agreement)."""
    in_order = sorted(
        identities.values(), key=lambda found: (found.created, len(found.number), found.number), reverse=True
    )
    return {identity.labels: identity.number for identity in in_order}


@dataclass(slots=True)
class EndpointGarbage:
    """Endpoints without a pod of that name. A pod may be told after its endpoint: it has to be missing for a while."""

    grace: float
    _missing: dict[tuple[PodKey, str], float] = field(default_factory=dict)

    def sweep(self, endpoints: Mapping[PodKey, Use], pods: set[PodKey], now: float) -> Iterator[tuple[PodKey, Use]]:
        """Those that may go."""
        orphans = {(key, use.uid): use for key, use in endpoints.items() if key not in pods}
        for gone in self._missing.keys() - orphans.keys():
            del self._missing[gone]
        for (key, uid), use in orphans.items():
            if now - self._missing.setdefault((key, uid), now) >= self.grace:
                yield key, use

"""Identities of prefixes: one for every prefix that a policy, a group or the API server's addresses speak of. Pure.

An address counts as the identity of the longest such prefix that it lies within, so whatever some policy singles out
can be told apart; broader selectors choose the narrower identities by containment (facts 2.6). A prefix without a
number would be taken for the broader one around it, which an `except` may have excluded: it is nobody's instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from policies.compiling.identity import IdentitiesExhausted, IdentityAllocator, Scope
from policies.compiling.peers import group_labels
from policies.compiling.selections import SelectorCache
from policies.errors import PolicyError, Reason
from policies.labels import API_SERVER_LABEL, RESERVED, cidr_key, is_of_names
from policies.objects import CidrGroup
from policies.prefixes import Prefix, PrefixMap, parse_prefix
from policies.types import IDENTITY_UNMANAGED

Labels = tuple[str, ...]

_NAMED_MAX: Final = 10  # prefixes without a number that are told one by one


class CidrBook:
    """Prefix -> identity. `is_dual`: each family has a world of its own."""

    def __init__(self, identities: IdentityAllocator, selectors: SelectorCache, *, is_dual: bool) -> None:
        self.identities: Mapping[Prefix, int] = {}  # replaced when it changes
        self.errors: tuple[PolicyError, ...] = ()
        self._allocator = identities
        self._selectors = selectors
        self._is_dual = is_dual
        self.labels: Mapping[Prefix, Labels] = {}  # replaced when it changes
        self._seen: tuple[object, ...] = ()
        self._is_first = True

    def take(self, groups: Mapping[str, CidrGroup], api_servers: frozenset[str]) -> None:
        """Follow the prefixes that selectors speak of, the groups, and the API server's addresses outside of nodes."""
        seen = (self._selectors.prefixes_version, groups, api_servers)
        if self._seen and seen[0] == self._seen[0] and groups is self._seen[1] and api_servers == self._seen[2]:
            return
        self._seen = seen
        wanted = self._wanted(groups, api_servers)
        gone = {p: labels for p, labels in self.labels.items() if wanted.get(p) != labels}
        known, nobodys = self.labels, {p for p, number in self.identities.items() if number == IDENTITY_UNMANAGED}
        new = {p: labels for p, labels in wanted.items() if known.get(p) != labels or p in nobodys}
        if not (gone or new or self._is_first):
            return
        numbers = dict(self.identities)
        for prefix in gone:
            self._release(numbers.pop(prefix))
        if self._is_first:  # what an earlier agent knew and this world does not
            known_before = self._allocator.in_use(Scope.LOCAL)
            others = {number for number, of in known_before.items() if not any(map(is_of_names, of))}
            for number in others - self._numbers_of(wanted):
                self._release(number)
            self._is_first = False
        for prefix in sorted(new):
            numbers[prefix] = self._enter(new[prefix])
        self.labels, self.identities = wanted, numbers
        self.errors = _no_number([prefix for prefix, n in numbers.items() if n == IDENTITY_UNMANAGED])

    def _wanted(self, groups: Mapping[str, CidrGroup], api_servers: Iterable[str]) -> dict[Prefix, Labels]:
        inherited: PrefixMap[set[str]] = PrefixMap()
        prefixes = {prefix for prefix in self._selectors.prefixes if prefix.length}
        for group in groups.values():
            for prefix in map(parse_prefix, group.prefixes):
                if inherited.get(prefix) is None:
                    inherited[prefix] = set()
                known = inherited.get(prefix)
                assert known is not None
                known.update(group_labels(group))
                if prefix.length:
                    prefixes.add(prefix)
        servers = {parse_prefix(address) for address in api_servers}
        return {
            prefix: self._labels_for(prefix, inherited.containing(prefix), prefix in servers)
            for prefix in prefixes | servers
        }

    def _numbers_of(self, wanted: Mapping[Prefix, Labels]) -> set[int | None]:
        return {self._allocator.number(labels, Scope.LOCAL) for labels in wanted.values()}

    def _labels_for(self, prefix: Prefix, inherited: Iterable[set[str]], is_api_server: bool) -> Labels:
        world = f"{RESERVED}:world-ipv{prefix.version}" if self._is_dual else f"{RESERVED}:world"
        labels = {cidr_key(str(prefix)), world, *(label for labels in inherited for label in labels)}
        return tuple(sorted(labels | {API_SERVER_LABEL} if is_api_server else labels))

    def _enter(self, labels: Labels) -> int:
        try:
            number = self._allocator.allocate(labels, Scope.LOCAL)
        except IdentitiesExhausted:
            return IDENTITY_UNMANAGED
        self._selectors.add(number, labels)
        return number

    def _release(self, number: int) -> None:
        if number != IDENTITY_UNMANAGED:
            self._allocator.release(number)
            self._selectors.remove(number)


def _no_number(prefixes: Sequence[Prefix]) -> tuple[PolicyError, ...]:
    """What is said of those that got none; many are counted (one hostile object names a hundred thousand)."""
    names = [str(prefix) for prefix in prefixes[:_NAMED_MAX]]
    if len(prefixes) > _NAMED_MAX:
        names.append(f"{len(prefixes) - _NAMED_MAX:,} more")
    message = "it is denied wherever policy is enforced: use fewer prefixes"
    return tuple(PolicyError("CIDR", "", name, "", Reason.NO_IDENTITY, message) for name in names)

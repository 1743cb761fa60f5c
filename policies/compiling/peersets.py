"""Peer sets: the living unions of selections that clauses are about. Pure.

Clauses with the same selectors share one peer set, in whatever policy they stand. `settle` brings all sets up to date
after identities came and went, and tells which changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pyroaring import BitMap

from policies.compiling.selections import Selection, SelectorCache
from policies.selectors import Selector


class PeerSet:
    """`members` of one selection is that selection's own object; only `PeerSets` changes it."""

    __slots__ = ("key", "members", "selections", "users")

    def __init__(self, key: frozenset[Selection], selections: tuple[Selection, ...]) -> None:
        self.key = key
        self.selections = selections
        self.members = selections[0].members if len(selections) == 1 else _union(selections)
        self.users = 0


class PeerSets:
    """The peer sets in use, each distinct one once."""

    def __init__(self, selectors: SelectorCache) -> None:
        self._selectors = selectors
        self._sets: dict[frozenset[Selection], PeerSet] = {}
        self._of: dict[Selection, dict[PeerSet, None]] = {}

    def acquire(self, selectors: Iterable[Selector]) -> PeerSet:
        """The set of all whom one of these selectors chooses; give it back with `release`."""
        selections = tuple(self._selectors.acquire(selector) for selector in dict.fromkeys(selectors))
        key = frozenset(selections)
        known = self._sets.get(key)
        if known is None:
            known = self._sets[key] = PeerSet(key, selections)
            for selection in selections:
                self._of.setdefault(selection, {})[known] = None
        else:
            for selection in selections:
                self._selectors.release(selection)
        known.users += 1
        return known

    def release(self, peers: PeerSet) -> None:
        """The last user's release forgets the set."""
        peers.users -= 1
        if peers.users:
            return
        del self._sets[peers.key]
        for selection in peers.selections:
            del self._of[selection][peers]
            if not self._of[selection]:
                del self._of[selection]
            self._selectors.release(selection)

    def settle(self) -> Mapping[PeerSet, BitMap]:
        """Sets that changed since the last call, and the identities that came or went; never empty ones."""
        flips = self._selectors.drain()
        changed: dict[PeerSet, BitMap] = {}
        for peers in {peers: None for selection in flips for peers in self._of.get(selection, ())}:
            if len(peers.selections) == 1:
                changed[peers] = flips[peers.selections[0]]
                continue
            now = _union(peers.selections)
            if difference := now ^ peers.members:
                peers.members, changed[peers] = now, difference
        return changed


def _union(selections: tuple[Selection, ...]) -> BitMap:
    return BitMap.union(BitMap(), *(selection.members for selection in selections))

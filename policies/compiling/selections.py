"""Which identities a selector chooses, kept current as identities and selectors come and go. Pure.

A new selector is answered by bitmap algebra over an index of labels, without a look at single identities; a new
identity is shown only to selectors that ask for one of its labels (each selector hangs on its rarest condition).
Nothing ever loops over identities times selectors. `drain` tells whose membership changed since it was last asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pyroaring import BitMap

from policies.prefixes import Prefix, PrefixMap, PrefixNumbers, parse_prefix
from policies.selectors import OWN_PREFIX, Chooser, Operator, Requirement, Selector, label_map
from policies.types import RESERVED_LABELS

_POSITIVE: Final = (Operator.IN, Operator.EXISTS)


class Selection:
    """The living answer to one selector. `members` is one object for life."""

    __slots__ = ("anchor", "chooser", "members", "selector", "users")

    def __init__(self, selector: Selector, members: BitMap, anchor: Requirement | None) -> None:
        self.selector = selector
        self.chooser = Chooser(selector)
        self.members = members
        self.anchor = anchor
        self.users = 0


class SelectorCache:
    """The selections in use, each distinct selector once. `reserved`: identities that are always known."""

    def __init__(self, reserved: Mapping[int, Iterable[str]] = RESERVED_LABELS) -> None:
        self.prefixes: Counter[Prefix] = Counter()  # that selectors in use speak of
        self.prefixes_version = 0
        self._selections: dict[Selector, Selection] = {}
        self._anchored = _Anchors()
        self._index = _Index()
        self._flips: dict[Selection, BitMap] = {}
        for identity, labels in reserved.items():
            if identity:  # 0 is nobody: the wildcard of the policy map
                self.add(identity, labels)

    def add(self, identity: int, labels: Iterable[str]) -> None:
        """An identity comes into use. One that is known keeps the labels that it has."""
        if identity in self._index.labels:
            return
        known = label_map(labels)
        self._index.add(identity, known)
        for selection in self._anchored.asked_by(known):
            if selection.chooser.matches(known):
                selection.members.add(identity)
                self._flip(selection, identity)

    def remove(self, identity: int) -> None:
        """An identity is in use no more."""
        known = self._index.labels.get(identity)
        if known is None:
            return
        self._index.remove(identity, known)
        for selection in self._anchored.asked_by(known):
            if identity in selection.members:
                selection.members.discard(identity)
                self._flip(selection, identity)

    def acquire(self, selector: Selector) -> Selection:
        """The selection of this selector; give it back with `release`."""
        selection = self._selections.get(selector)
        if selection is None:
            anchor = min(
                (r for r in selector.requirements if r.operator in _POSITIVE), key=self._index.frequency, default=None
            )
            selection = Selection(selector, self._index.choose(selector), anchor)
            self._selections[selector] = selection
            self._anchored.add(selection)
            self._mention(selector, 1)
        selection.users += 1
        return selection

    def release(self, selection: Selection) -> None:
        """The last user's release forgets the selection."""
        selection.users -= 1
        if selection.users == 0:
            del self._selections[selection.selector]
            self._anchored.remove(selection)
            self._flips.pop(selection, None)
            self._mention(selection.selector, -1)

    def drain(self) -> Mapping[Selection, BitMap]:
        """Selections that changed since the last call, and the identities that came or went; never empty ones."""
        found = {selection: flips for selection, flips in self._flips.items() if flips}
        self._flips = {}
        return found

    def __len__(self) -> int:
        return len(self._selections)

    def _flip(self, selection: Selection, identity: int) -> None:
        flips = self._flips.setdefault(selection, BitMap())
        if identity in flips:  # there and back
            flips.discard(identity)
        else:
            flips.add(identity)

    def _mention(self, selector: Selector, times: int) -> None:
        for prefix in filter(None, (requirement.prefix for requirement in selector.requirements)):
            self.prefixes[prefix] += times
            if self.prefixes[prefix] == max(times, 0):
                self.prefixes_version += 1
            if not self.prefixes[prefix]:
                del self.prefixes[prefix]


class _Anchors:
    """Selections by the condition that they hang on: who lacks it cannot be chosen."""

    def __init__(self) -> None:
        self._by_value: dict[tuple[str, str], dict[Selection, None]] = {}
        self._by_key: dict[str, dict[Selection, None]] = {}
        self._by_prefix: PrefixMap[dict[Selection, None]] = PrefixMap()
        self._others: dict[Selection, None] = {}

    def add(self, selection: Selection) -> None:
        for place in self._places(selection, make=True):
            place[selection] = None

    def remove(self, selection: Selection) -> None:
        for place in self._places(selection, make=False):
            place.pop(selection, None)
        anchor = selection.anchor
        if anchor is None:
            return
        prefix = anchor.prefix
        if prefix is not None:
            if not self._by_prefix.get(prefix):
                del self._by_prefix[prefix]
            return
        for value in anchor.values:
            if not self._by_value.get((anchor.key, value), True):
                del self._by_value[anchor.key, value]
        if not self._by_key.get(anchor.key, True):
            del self._by_key[anchor.key]

    def asked_by(self, labels: Mapping[str, str]) -> list[Selection]:
        """Selections that may choose an identity of these labels, each once."""
        places = [self._others]
        for item in labels.items():
            if (by_value := self._by_value.get(item)) is not None:
                places.append(by_value)
            if (by_key := self._by_key.get(item[0])) is not None:
                places.append(by_key)
        if (own := labels.get(OWN_PREFIX)) is not None:
            places += self._by_prefix.containing(parse_prefix(own))
        else:  # the world of a family is what is within its /0
            for version in (4, 6):
                if f"reserved:world-ipv{version}" in labels:
                    places.append(self._by_prefix.get(Prefix(version, 0, 0)) or {})
        return [selection for place in places for selection in place]

    def _places(self, selection: Selection, *, make: bool) -> Iterator[dict[Selection, None]]:
        anchor = selection.anchor
        if anchor is None:
            yield self._others
        elif (prefix := anchor.prefix) is not None:
            place = self._by_prefix.get(prefix)
            if place is None and make:
                place = self._by_prefix[prefix] = {}
            yield place if place is not None else {}
        elif anchor.operator is Operator.EXISTS:
            yield self._by_key.setdefault(anchor.key, {})
        else:
            for value in anchor.values:
                yield self._by_value.setdefault((anchor.key, value), {})


class _Index:
    """Identities by what their labels say."""

    def __init__(self) -> None:
        self.labels: dict[int, dict[str, str]] = {}
        self._all = BitMap()
        self._with_key: dict[str, BitMap] = {}
        self._with_value: dict[tuple[str, str], BitMap] = {}
        self._prefixes = PrefixNumbers()

    def add(self, identity: int, known: dict[str, str]) -> None:
        self.labels[identity] = known
        self._all.add(identity)
        for item in known.items():
            _put(self._with_key, item[0], identity)
            _put(self._with_value, item, identity)
        if (own := known.get(OWN_PREFIX)) is not None:
            self._prefixes.add(parse_prefix(own), identity)

    def remove(self, identity: int, known: Mapping[str, str]) -> None:
        del self.labels[identity]
        self._all.discard(identity)
        for item in known.items():
            _discard(self._with_key, item[0], identity)
            _discard(self._with_value, item, identity)
        if (own := known.get(OWN_PREFIX)) is not None:
            self._prefixes.remove(parse_prefix(own), identity)

    def choose(self, selector: Selector) -> BitMap:
        """All identities that the selector chooses, as a set of its own."""
        positive = [self._holders(r) for r in selector.requirements if r.operator in _POSITIVE]
        members = (positive[0] if positive else self._all).copy()
        for holders in positive[1:]:
            members &= holders
        for requirement in selector.requirements:
            if requirement.operator not in _POSITIVE:
                members -= self._holders(requirement)
        return members

    def frequency(self, requirement: Requirement) -> int:
        """How many identities meet it now, at the most."""
        if requirement.prefix is not None or requirement.operator is Operator.EXISTS:
            return len(self._holders(requirement))
        return sum(len(self._with_value.get((requirement.key, value), ())) for value in requirement.values)

    def _holders(self, requirement: Requirement) -> BitMap:
        """Who has the key, with one of the values if there are any. Not to be changed."""
        if (prefix := requirement.prefix) is not None:
            if requirement.values and "" not in requirement.values:  # the label of a prefix has no value
                return BitMap()
            world = self._with_key.get(f"reserved:world-ipv{prefix.version}", BitMap()) if not prefix.length else ()
            return BitMap(self._prefixes.within(prefix)) | BitMap(world)
        if requirement.operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST):
            return self._with_key.get(requirement.key, BitMap())
        found = [self._with_value.get((requirement.key, value), BitMap()) for value in requirement.values]
        return found[0] if len(found) == 1 else BitMap.union(BitMap(), *found)


def _put(index: dict[Any, BitMap], key: Any, identity: int) -> None:
    members = index.get(key)
    if members is None:
        index[key] = BitMap([identity])
    else:
        members.add(identity)


def _discard(index: dict[Any, BitMap], key: Any, identity: int) -> None:
    members = index[key]
    members.discard(identity)
    if not members:
        del index[key]

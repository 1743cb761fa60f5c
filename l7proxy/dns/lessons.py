"""What the agent is taught, and which answers wait for it: those that tell a pod addresses of a name that some policy
of the node opens, and that are not in force yet. Pure; time is an argument (seconds of a clock that never goes back).

    take        an answer is about to be released   -> what to tell the agent, and whether to wait
    in_force    the agent has opened the addresses  -> known, until they expire as the agent was told
    cannot_be   it will not
    away, back  the agent is gone, or another one has come and listens
    here        and answers: it has put in force what the one before it had

An address is known until the time that the agent has confirmed, never longer: it keeps an address open at least so
long, so nobody need tell the proxy what it closes. Where addresses are open to the whole node, what one pod has learned
is known for all; but for `SHARED_MAX` at most, since that pod may go, and somebody else come to its address. Each pod's
own time is told all the same, and nobody waits for it. While the agent is away nothing is closed, and what was known
when it went stays known, to whoever has learned it for as long as was confirmed; what is learned meanwhile waits, one
lesson for each name and its addresses.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar

from l7proxy.dns.answers import Learned
from policies.dns_patterns import Dialect, NameSet
from policies.ir import FqdnSelector

# The agent is told a little more than the TTL, so that answers that come again within this time are no news.
SLACK: Final = 1.0
KNOWN_MAX: Final = 100_000  # of names of pods; of what is forgotten the next answer waits a moment
SHARED_MAX: Final = 300  # seconds; at most what the agent's book grants names of a pod that has gone (ORPHANED_MAX)
TOLD_MAX: Final = 20_000  # answers about other names that are remembered as told
LESSONS_MAX: Final = 20_000  # without an answer of the agent; beyond that answers are withheld
TTL_MAX: Final = 0x7FFFFFFF

Key = TypeVar("Key")
Subject = tuple[str, str, frozenset[bytes]]  # address of the pod, name, addresses in whatever order


@dataclass(slots=True, eq=False)
class Lesson:
    """To be told, until it is answered. `number` 0: it will not be. `seconds`: for how long, from `at` on."""

    number: int
    pod: str
    learned: Learned
    seconds: int
    at: float


class Taken(NamedTuple):
    """What an answer has come to. `lesson`: to be told now; `waits_for`: the number that it must wait for, 0 for none;
    `is_full`: it can neither wait nor be released."""

    lesson: Lesson | None = None
    waits_for: int = 0
    is_full: bool = False


_NOTHING: Final = Taken()


@dataclass
class Lessons:
    """Of one worker."""

    _selected: NameSet = field(default_factory=lambda: NameSet((), (), Dialect.TO_FQDNS))
    _targets: bool = False
    _shares: bool = True
    _known: OrderedDict[tuple[str, str, bytes], float] = field(default_factory=OrderedDict)  # to a pod, until when
    _shared: OrderedDict[tuple[str, bytes], float] = field(default_factory=OrderedDict)  # to all of them
    _told: OrderedDict[tuple[str, str, tuple[bytes, ...]], float] = field(default_factory=OrderedDict)
    _open: OrderedDict[int, Lesson] = field(default_factory=OrderedDict)  # by number
    _latest: dict[Subject, Lesson] = field(default_factory=dict)
    _last: int = 0
    _away_since: float | None = None
    _is_heard: bool = True  # what is taught now is told at once

    def __len__(self) -> int:
        """Lessons without an answer."""
        return len(self._open)

    def select(self, selectors: Iterable[FqdnSelector], *, targets: bool, shares: bool = True) -> None:
        """Names that matter from now on; with `targets`, also as the target of a CNAME. `shares`: what one pod learns
        is open to all of them."""
        some = tuple(selectors)
        names = (one.name for one in some if not one.pattern)
        self._selected = NameSet(names, (one.pattern for one in some if one.pattern), Dialect.TO_FQDNS)
        self._targets = targets
        if not shares:
            self._shared.clear()
        self._shares = shares

    def take(self, pod: str, learned: Learned, now: float) -> Taken:
        """An answer that may be released if no address of it has to wait."""
        until = now + learned.ttl
        if not self._matters(learned):
            return self._mention(pod, learned, now, until)
        names = (learned.name, *learned.targets) if self._targets else (learned.name,)
        since = now if self._away_since is None else self._away_since
        known, shared = self._known, self._shared
        doubts_itself = self._shares and self._away_since is None  # somebody else may have this address now
        new = soon = False
        for name in names:
            for address in learned.addresses:
                confirmed = known.get((pod, name, address), 0.0)
                soon |= confirmed < until
                new |= shared.get((name, address), 0.0) <= since and (confirmed <= since or doubts_itself)
        if not new and not soon:
            return _NOTHING
        same = self._latest.get(_subject(pod, learned))
        if same is not None:
            if same.at + same.seconds >= until:
                return Taken(None, same.number if new else 0)
            if not self._is_heard:  # it may as well say this
                same.at, same.seconds = now, _seconds(learned.ttl)
                return Taken(None, same.number if new else 0)
        if len(self._open) >= LESSONS_MAX:
            return Taken(is_full=new)
        return self._teach(pod, learned, now, new)

    def in_force(self, number: int) -> None:
        """The addresses of this lesson are open, as long as it says."""
        lesson = self._settle(number)
        if lesson is None:
            return
        learned, until = lesson.learned, lesson.at + lesson.seconds
        for name in (learned.name, *learned.targets):
            for address in learned.addresses:
                _extend(self._known, (lesson.pod, name, address), until)
                if self._shares:
                    _extend(self._shared, (name, address), min(until, lesson.at + SHARED_MAX))

    def cannot_be(self, number: int) -> None:
        """They are not, and will not be."""
        self._settle(number)

    def away(self, now: float) -> None:
        """The agent is gone. Harmless the second time."""
        self._is_heard = False
        if self._away_since is None:
            self._away_since = now

    def back(self) -> Sequence[Lesson]:
        """An agent has come: what it must be told (again). While it starts, it closes nothing."""
        self._is_heard = True
        return tuple(self._open.values())

    def here(self) -> None:
        """It answers from now on. Harmless the second time."""
        self._away_since = None

    def _matters(self, learned: Learned) -> bool:
        selected = self._selected
        return learned.name in selected or (self._targets and any(name in selected for name in learned.targets))

    def _mention(self, pod: str, learned: Learned, now: float, until: float) -> Taken:
        """For lists and flows: nobody waits for it, and it may be lost."""
        key = (pod, learned.name, learned.addresses)
        if self._told.get(key, 0.0) >= until:
            return _NOTHING
        lesson = Lesson(0, pod, learned, _seconds(learned.ttl), now)
        self._told[key] = lesson.at + lesson.seconds
        if len(self._told) > TOLD_MAX:
            self._told.popitem(last=False)
        return Taken(lesson)

    def _teach(self, pod: str, learned: Learned, now: float, new: bool) -> Taken:
        self._last += 1
        lesson = Lesson(self._last, pod, learned, _seconds(learned.ttl), now)
        self._open[lesson.number] = self._latest[_subject(pod, learned)] = lesson
        return Taken(lesson, lesson.number if new else 0)

    def _settle(self, number: int) -> Lesson | None:
        lesson = self._open.pop(number, None)
        if lesson is not None:
            subject = _subject(lesson.pod, lesson.learned)
            if self._latest.get(subject) is lesson:
                del self._latest[subject]
        return lesson


def _extend(known: OrderedDict[Key, float], key: Key, until: float) -> None:
    known[key] = max(until, known.get(key, 0.0))
    known.move_to_end(key)
    if len(known) > KNOWN_MAX:
        known.popitem(last=False)


def _subject(pod: str, learned: Learned) -> Subject:
    return (pod, learned.name, frozenset(learned.addresses))


def _seconds(ttl: int) -> int:
    return min(ttl + int(SLACK), TTL_MAX)

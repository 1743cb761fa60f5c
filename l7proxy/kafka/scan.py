"""Walks through a message as it arrives, and picks out what is wanted; the rest is neither decoded nor copied. Pure.

A plan is made of a struct of `schema` and the paths that are wanted. A scan follows it over pieces of a message of any
size, with a stack of its own, and stops only where a field is not there yet. Records are stepped over.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final, NamedTuple

from l7proxy.kafka.codec import UUID_SIZE
from l7proxy.kafka.schema import ARRAY, STRUCT, Field, Struct
from l7proxy.kafka.wire import INT16, INT32, NUMBERS, Cursor, WireError

FIELD_MAX: Final = 65536  # bytes of a field that is read, or of one whose length is; texts have 32,767 at most
FOUND_MAX: Final = 200_000  # values that are picked out of one message


class Short(Exception):
    """The next field has not arrived yet."""


class Do(IntEnum):
    """Steps of a plan."""

    SKIP = 0  # so many bytes
    NUMBER = 1
    UUID = 2
    TEXT = 3
    BYTES = 4  # bytes or records
    ARRAY = 5
    STRUCT = 6  # one that may be null
    TAGS = 7
    TAG = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `path`: what is found is wanted, and known by this."""

    do: Do
    path: str = ""
    argument: Any = None  # bytes to skip, the layout of a number, the plan of an array's elements or a struct
    nullable: bool = False


TAGGED: Final = Step(Do.TAGS)  # tagged fields, none of which is wanted


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of a struct. `size`: bytes, where it is always the same and nothing in it is wanted."""

    flexible: bool
    steps: tuple[Step, ...]
    size: int | None


class Found(NamedTuple):
    """A value by its path. Of an array its count, -1 if it is null."""

    path: str
    value: Any


def plan(struct: Struct, wanted: Iterable[str], above: str = "") -> Plan:
    """How to walk through the struct; `wanted` are paths, with dots, of untagged fields."""
    paths = frozenset(wanted)
    steps: list[Step] = []
    for field in struct.fields:
        step = _step(field, struct.flexible, paths, above + field.name)
        if step.do is Do.SKIP and steps and steps[-1].do is Do.SKIP:
            steps[-1] = Step(Do.SKIP, argument=steps[-1].argument + step.argument)
        else:
            steps.append(step)
    if struct.flexible:
        steps.append(TAGGED)
    is_fixed = all(step.do is Do.SKIP for step in steps)
    return Plan(struct.flexible, tuple(steps), sum(step.argument for step in steps) if is_fixed else None)


_FIXED: Final = {**{kind: layout.size for kind, layout in NUMBERS.items()}, "bool": 1, "uuid": UUID_SIZE}


def _step(field: Field, flexible: bool, paths: frozenset[str], path: str) -> Step:
    is_wanted = path in paths
    named = path if is_wanted else ""
    kind = field.type
    if kind.startswith(ARRAY) or kind == STRUCT:
        if field.struct is not None:
            inner = plan(field.struct, paths, path + ".")
        else:
            element = Field(field.name, kind[len(ARRAY) :], False, None)
            step = _step(element, flexible, frozenset({path + ".each"} & paths), path + ".each")
            inner = Plan(flexible, (step,), step.argument if step.do is Do.SKIP else None)
        return Step(Do.STRUCT if kind == STRUCT else Do.ARRAY, named, inner, field.nullable)
    if kind in _FIXED and not is_wanted:
        return Step(Do.SKIP, argument=_FIXED[kind])
    if kind in NUMBERS:
        return Step(Do.NUMBER, named, NUMBERS[kind])
    if kind == "uuid":
        return Step(Do.UUID, named)
    if kind == "bool":
        return Step(Do.NUMBER, named, NUMBERS["int8"])
    return Step(Do.TEXT if kind == "string" else Do.BYTES, named, nullable=field.nullable)


class _Level:
    """A plan that is being followed, for as many elements as are left."""

    __slots__ = ("at", "left", "plan")

    def __init__(self, followed: Plan, left: int) -> None:
        self.plan = followed
        self.at = 0
        self.left = left


class Scan:
    """One message of known size. `feed` it; what is wanted collects in `found`. WireError: it is no such message.

    `halt`: go no further than the first array that is wanted; then `place` is where its count stands in the message.
    What comes after the last field is nobody's: peers do not mind it, and there are some that send more (librdkafka,
    when it asks for all topics).
    """

    def __init__(self, followed: Plan, size: int, *, halt: bool = False) -> None:
        self.found: list[Found] = []
        self.place: tuple[int, int] | None = None
        self.flexible = followed.flexible
        self._halt = halt
        self._base = 0  # of the piece at hand, in the message
        self._levels = [_Level(followed, 1)]
        self._unseen = size  # bytes that have not been fed
        self._skip = 0
        self._tail = b""  # of the last piece: a field that was not there as a whole

    @property
    def is_over(self) -> bool:
        """Whether the last field was seen."""
        return not self._levels and not self._skip

    def feed(self, piece: memoryview | bytes) -> None:
        """The next bytes; no more than are left of the message."""
        self._unseen -= len(piece)
        if self._tail:
            piece = self._tail + bytes(piece)
            self._tail = b""
        cursor = Cursor(piece)
        if self.place is None and self._stepped(cursor):
            try:
                self._follow(cursor)
            except Short:
                pass
        self._settle(cursor)

    def _stepped(self, cursor: Cursor) -> bool:
        """Skip what is to be skipped; whether all of it was there."""
        step = min(self._skip, cursor.end - cursor.at)
        cursor.at += step
        self._skip -= step
        return not self._skip

    def _settle(self, cursor: Cursor) -> None:
        """What remains of the piece is kept, if the message can go on with it."""
        rest = cursor.end - cursor.at
        self._base += cursor.at
        if self.place is not None or self.is_over:
            return
        if self._unseen == 0:
            raise WireError("message ends within a field")
        if rest > FIELD_MAX:
            raise WireError("field is too long")
        self._tail = bytes(cursor.view[cursor.at :])

    def _follow(self, cursor: Cursor) -> None:
        """Step by step, to the end of the piece or message. Short: the step at hand is not there as a whole."""
        levels = self._levels
        while levels:
            level = levels[-1]
            steps = level.plan.steps
            while level.at < len(steps):
                step = steps[level.at]
                before = cursor.at
                try:
                    inner = self._take(step, level.plan.flexible, cursor)
                except Short:
                    cursor.at = before
                    raise
                level.at += 1
                if self._halt and step.path and step.do is Do.ARRAY:
                    self.place = (self._base + before, self._base + cursor.at)
                    return
                if inner is not None:
                    levels.append(inner)
                    break
                if self._skip and not self._stepped(cursor):
                    return
            else:
                level.left -= 1
                level.at = 0
                if level.left <= 0:
                    levels.pop()

    def _take(self, step: Step, flexible: bool, cursor: Cursor) -> _Level | None:
        do = step.do
        if do is Do.SKIP:
            self._skip = step.argument
        elif do is Do.TEXT:
            self._text(step, _length(cursor, flexible, short=True), cursor)
        elif do is Do.TAGS:
            return self._tags(cursor)
        elif do is Do.ARRAY:
            return self._array(step, _length(cursor, flexible), cursor)
        elif do is Do.BYTES:
            self._bytes(step, _length(cursor, flexible))
        elif do is Do.STRUCT:
            return self._struct(step, cursor)
        elif do is Do.TAG:
            _varint(cursor)
            self._skip = _varint(cursor)
        else:
            size = UUID_SIZE if do is Do.UUID else step.argument.size
            if size > cursor.end - cursor.at:
                raise Short
            self._find(step.path, bytes(cursor.take(size)) if do is Do.UUID else cursor.number(step.argument))
        return None

    def _text(self, step: Step, size: int, cursor: Cursor) -> None:
        if size < 0:
            if not step.nullable:
                raise WireError("text is null")
            if step.path:
                self._find(step.path, None)
        elif not step.path:
            self._skip = size
        elif size > FIELD_MAX:
            raise WireError("text is too long")
        elif size > cursor.end - cursor.at:
            raise Short
        else:
            self._find(step.path, cursor.text(size))

    def _bytes(self, step: Step, size: int) -> None:
        if size < 0 and not step.nullable:
            raise WireError("bytes are null")
        self._skip = max(size, 0)

    def _array(self, step: Step, count: int, cursor: Cursor) -> _Level | None:
        if count < 0 and not step.nullable:
            raise WireError("array is null")
        inner: Plan = step.argument
        if count > cursor.end - cursor.at + self._unseen:
            raise WireError("array is longer than the message")
        if step.path:
            self._find(step.path, count)
        if count <= 0:
            return None
        if inner.size is not None:
            self._skip = inner.size * count
            return None
        return _Level(inner, count)

    def _struct(self, step: Step, cursor: Cursor) -> _Level | None:
        if step.nullable:
            if cursor.at >= cursor.end:
                raise Short
            if cursor.number(NUMBERS["int8"]) < 0:
                return None
        return _Level(step.argument, 1)

    def _tags(self, cursor: Cursor) -> _Level | None:
        count = _varint(cursor)
        return _Level(_TAG, count) if count else None

    def _find(self, path: str, value: Any) -> None:
        if len(self.found) >= FOUND_MAX:
            raise WireError("message names too much")
        self.found.append(Found(path, value))


def _length(cursor: Cursor, flexible: bool, short: bool = False) -> int:
    if flexible:
        size = _varint(cursor) - 1
    else:
        layout = INT16 if short else INT32
        if layout.size > cursor.end - cursor.at:
            raise Short
        size = cursor.number(layout)
    if size < -1:
        raise WireError("negative length")
    return size


def _varint(cursor: Cursor) -> int:
    view, at, end = cursor.view, cursor.at, cursor.end
    if at < end and view[at] < 0x80:
        cursor.at = at + 1
        return view[at]
    for byte in view[at : at + 5]:
        if byte < 0x80:
            return cursor.varint()
    if end - at < 5:
        raise Short
    return cursor.varint()


_TAG: Final = Plan(True, (Step(Do.TAG),), None)

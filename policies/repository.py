"""All objects that are in force, by the file (or watch) that they come from. Pure; one writer.

Laws: a file with a syntax error keeps all its last good objects. A bad object keeps its own last good version; one that
was never good leaves behind whom it selects, to be denied (policies.reading.crd.fallback), or, if it is a pod, who and
where it is, so that policies select it (policies.reading.core_objects.pod_stand_in). An object in two files is an error
that names both; the one that came first stays in force.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from policies.advising.advice import advise
from policies.errors import PolicyError, PolicyErrors, Reason, in_order
from policies.holdings import Holdings
from policies.objects import Object, ObjectKey, Pod, key_of
from policies.reading.manifests import Chunk, Document, FileEvent, Locator, locate, read_chunk, split
from policies.reading.readers import identify, read_object
from policies.rules import Policy
from policies.world import World


@dataclass(frozen=True, slots=True)
class Change:
    """`changed`: the world is another one now. `errors`: all that is wrong with this source, sorted."""

    changed: bool
    errors: tuple[PolicyError, ...] = ()


@dataclass(frozen=True, slots=True)
class _Reading:
    """One document as read: a good object, or a stand-in and errors. Lines count from the start of its chunk; those of
    warnings are looked up when somebody asks for them."""

    key: ObjectKey | None
    line: int
    good: Object | None = None
    stand_in: Policy | Pod | None = None
    errors: tuple[PolicyError, ...] = ()
    warnings: tuple[PolicyError, ...] = ()
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class _Held:
    obj: Object
    line: int
    stands_in: bool = False  # for one that was never good


@dataclass(slots=True)
class _Source:
    text: str | None = None
    objects: dict[ObjectKey, _Held] = field(default_factory=dict)
    errors: tuple[PolicyError, ...] = ()
    readings: dict[str, tuple[_Reading, ...]] = field(default_factory=dict)  # by the text of the chunk
    innocent: frozenset[str] = frozenset()  # chunks that are bad, but were so when nothing was missing
    warnings: tuple[PolicyError, ...] | None = None  # of this text, once they were asked for


class Repository:
    """The store. Every method answers what changed; `world` and `problems` are the state."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._claims: dict[ObjectKey, list[str]] = {}  # sources in the order of their coming: the first is in force
        self._contested: set[ObjectKey] = set()
        self._holdings = Holdings()
        self._versions: dict[str, str] = {}

    def replace(self, source: str, text: str) -> Change:
        """The source has this text now."""
        known = self._sources.setdefault(source, _Source())
        if text == known.text:
            return Change(False, self._errors_of(source))
        known.text = text
        try:
            chunks = [(chunk, self._read(known, chunk, source)) for chunk in split(text)]
        except PolicyErrors as failure:
            known.errors = failure.errors
            return Change(False, self._errors_of(source))
        known.readings = {chunk.text: readings for chunk, readings in chunks}
        known.warnings = None
        merged = _Merge(source, known)
        for chunk, readings in chunks:
            for reading in readings:
                merged.take(reading, chunk)
        objects = merged.objects()
        known.errors, known.innocent = in_order(merged.errors), merged.innocent()
        return Change(self._hold(source, objects), self._errors_of(source))

    def refuse(self, source: str, message: str) -> Change:
        """The source cannot be read: everything stays as it was, and that is a problem."""
        known = self._sources.setdefault(source, _Source())
        known.text, known.warnings = None, None
        known.errors = (PolicyError("", "", "", "", Reason.UNREADABLE, message, source),)
        return Change(False, self._errors_of(source))

    def remove(self, source: str) -> Change:
        """The source is gone, and its objects with it."""
        changed = self._hold(source, {}) if source in self._sources else False
        self._sources.pop(source, None)
        return Change(changed)

    def apply(self, event: FileEvent) -> Change:
        """What became of a file."""
        if event.text is not None:
            self._versions[event.path] = hashlib.sha256(event.text.encode()).hexdigest()
        elif not event.error:
            self._versions.pop(event.path, None)
        if event.error:
            return self.refuse(event.path, event.error)
        return self.remove(event.path) if event.text is None else self.replace(event.path, event.text)

    def world(self) -> World:
        """The immutable view. Unchanged kinds are the same mappings as before."""
        return self._holdings.world()

    @property
    def versions(self) -> Mapping[str, str]:
        """Files, and the SHA-256 of the text of each that was read last."""
        return MappingProxyType(self._versions)

    @property
    def problems(self) -> tuple[PolicyError, ...]:
        """Everything that is wrong now, by file and line."""
        errors = [error for known in self._sources.values() for error in known.errors]
        return in_order([*errors, *(error for key in self._contested for error in self._conflicts(key))])

    @property
    def warnings(self) -> tuple[PolicyError, ...]:
        """What authors may not have meant, by file and line: of the files as they are now, good objects or not."""
        return in_order(finding for source, known in self._sources.items() for finding in _warnings_of(source, known))

    def _read(self, known: _Source, chunk: Chunk, source: str) -> tuple[_Reading, ...]:
        """The documents of a chunk; an unchanged chunk is not read again."""
        cached = known.readings.get(chunk.text)
        if cached is not None:
            return cached
        locator = Locator(chunk.text)
        return tuple(_read_document(document, locator) for document in read_chunk(chunk, source))

    def _hold(self, source: str, objects: dict[ObjectKey, _Held]) -> bool:
        """Make these the objects of the source; whether that changes what is in force."""
        before = self._sources[source].objects
        self._sources[source].objects = objects
        changed = False
        for key in before.keys() | objects.keys():
            claims = self._claims.setdefault(key, [])
            if key in objects and source not in claims:
                claims.append(source)
            elif key not in objects:
                claims.remove(source)
            changed |= self._enforce(key, claims)
        return changed

    def _enforce(self, key: ObjectKey, claims: list[str]) -> bool:
        """Put the first claim in force; whether that is another object than before."""
        if len(claims) > 1:
            self._contested.add(key)
        else:
            self._contested.discard(key)
        if not claims:
            del self._claims[key]
        return self._holdings.put(key, self._sources[claims[0]].objects[key].obj if claims else None)

    def _errors_of(self, source: str) -> tuple[PolicyError, ...]:
        known = self._sources[source]
        conflicts = [e for key in self._contested & known.objects.keys() for e in self._conflicts(key)]
        return in_order([*known.errors, *(error for error in conflicts if error.source == source)])

    def _conflicts(self, key: ObjectKey) -> list[PolicyError]:
        """One error for each source that has this object too, but came later."""
        first, *others = self._claims[key]
        there = (first, self._sources[first].objects[key].line)
        return [_conflict(key, (source, self._sources[source].objects[key].line), there) for source in others]


def _read_document(document: Document, locator: Locator) -> _Reading:
    key = identify(document.raw)
    found = read_object(document.raw)
    errors = tuple(error.at("", locate(locator, document, error.path)) for error in found.errors)
    if found.good is not None:
        key = key_of(found.good)
    elif key is None and found.fallback is not None:  # even its name is bad
        key = key_of(found.fallback)
    return _Reading(key, document.line, found.good, found.fallback, errors, found.warnings, document.prefix)


def _warnings_of(source: str, known: _Source) -> tuple[PolicyError, ...]:
    """Looked up once for each text: most of it never changes, and nobody may ask."""
    if known.warnings is None:
        found: list[PolicyError] = []
        chunks = split(known.text) if known.text is not None else []
        for chunk in chunks:
            locator = Locator(chunk.text)
            for reading in known.readings.get(chunk.text, ()):
                document = Document(None, reading.line, reading.prefix)
                advice = advise(reading.good) if isinstance(reading.good, Policy) else ()
                for finding in (*reading.warnings, *advice):
                    line = chunk.line - 1 + locate(locator, document, finding.path)
                    found.append(finding.at(source, line))
        known.warnings = tuple(found)
    return known.warnings


class _Merge:
    """What a file stands for now: its documents as read, against the objects that it stood for before."""

    def __init__(self, source: str, known: _Source) -> None:
        self.errors: list[PolicyError] = []
        self._source = source
        self._before = known.objects
        self._innocent = known.innocent
        self._after: dict[ObjectKey, _Held] = {}
        self._suspects: set[str] = set()

    def take(self, reading: _Reading, chunk: Chunk) -> None:
        start = chunk.line - 1
        self.errors += [error.at(self._source, start + error.line) for error in reading.errors]
        old = self._before.get(reading.key) if reading.key is not None else None
        obj = reading.good
        if obj is None:  # its own last good version, or what must hold without one
            if old is None:
                self._suspects.add(chunk.text)
            obj = old.obj if old is not None and not old.stands_in else reading.stand_in
        if obj is None or reading.key is None:
            return
        line = start + reading.line
        if reading.key in self._after:
            there = (self._source, self._after[reading.key].line)
            self.errors.append(_conflict(reading.key, (self._source, line), there))
            return
        is_same = old is not None and (old.obj is obj or old.obj == obj)
        held = old.obj if old is not None and is_same else obj
        self._after[reading.key] = _Held(held, line, stands_in=obj is reading.stand_in)

    def objects(self) -> dict[ObjectKey, _Held]:
        """A bad document that is no known object may be the bad version of one that is missing now (a misspelt kind or
        name): taking the missing one out of force would open what it closes. So it stays until the file is clear."""
        if self._suspects - self._innocent:
            return {**self._missing(), **self._after}
        return self._after

    def innocent(self) -> frozenset[str]:
        """Bad chunks that are no bad version of something missing: nothing is, or they were there before."""
        return frozenset(self._suspects & self._innocent if self._missing() else self._suspects)

    def _missing(self) -> dict[ObjectKey, _Held]:
        return {key: held for key, held in self._before.items() if key not in self._after}


def _conflict(key: ObjectKey, here: tuple[str, int], there: tuple[str, int]) -> PolicyError:
    message = f"also in {there[0]}:{there[1]}, which stays in force: remove one of them"
    return PolicyError(key.kind, key.namespace, key.name, "", Reason.DUPLICATE, message, *here)

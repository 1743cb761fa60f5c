"""What is served, and why it may differ from what was published: last good forms in place of refused ones.

Pure. Laws (architecture 4): a refused resource goes back to its last good form, once, under a fresh version, and stays
there until its content changes; where there is no last good form, or that was refused as well, it is left out, which
denies. The others of the same response are told again under a fresh version, for nobody knows which were applied. A
resource can thus be refused twice per content, and no sequence of refusals makes a loop.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from xds.acks import offenders, one_line
from xds.resources import FILTER, LISTENER, Key, Resource, ResourceTable
from xds.snapshot import Snapshot, snapshot

Watcher = Callable[[Snapshot], None]


@dataclass(frozen=True, slots=True)
class Rejection:
    """The proxy refused this content of a resource, and said why."""

    digest: str
    message: str


class InconsistentError(ValueError):
    """The published resources refer to some that are not among them."""


class SnapshotCache:
    """The world as served. `epoch` is the first that versions carry; whoever starts may pass a number of his own."""

    def __init__(self, epoch: int = 0) -> None:
        self.snapshot: Snapshot | None = None  # nothing is served before the first publish
        self._first_epoch = epoch
        self._epoch = epoch
        self._desired: dict[Key, Resource] = {}
        self._served: dict[Key, Resource] = {}
        self._good: dict[Key, Resource] = {}
        self._rejections: dict[Key, Rejection] = {}
        self._watchers: list[Watcher] = []

    @property
    def rejections(self) -> Mapping[Key, Rejection]:
        """Resources that are not served as published: refused, and not changed since."""
        return dict(self._rejections)

    def rejection(self, key: Key) -> Rejection | None:
        """Why this one is not served as published."""
        return self._rejections.get(key)

    def served_version(self, key: Key) -> str | None:
        """The version under which it is served, None if it is not."""
        served = self._served.get(key)
        return served.version if served is not None else None

    def publish(self, table: ResourceTable) -> Snapshot:
        """Serve this table. Slots that it could not translate keep what was published for them before.

        Raises InconsistentError, and serves what it served, when something refers to what is not there.
        """
        desired = {**self._kept(table), **table.by_key()}
        problems = snapshot(desired.values()).problems()
        if problems:
            raise InconsistentError("; ".join(problems))
        self._desired = desired
        self._rejections = {
            key: rejection
            for key, rejection in self._rejections.items()
            if key in desired and desired[key].digest == rejection.digest
        }
        self._served = {r.key: r for r in map(self._form_of, desired.values()) if r is not None}
        self._good = {key: good for key, good in self._good.items() if key in desired}
        return self._changed()

    def accepted(self, versions: Mapping[Key, str]) -> None:
        """The proxy has accepted these versions: those still served are last good forms."""
        for key, version in versions.items():
            served = self._served.get(key)
            if served is not None and served.version == version:
                self._good[key] = served

    def rejected(self, versions: Mapping[Key, str], message: str) -> frozenset[Key]:
        """The proxy has refused a response with these versions. Returns the resources held responsible.

        What has been published since is left alone: it has its own answer to come.
        """
        current = {key: self._served[key] for key, version in versions.items() if self.served_version(key) == version}
        guilty = offenders(message, versions.keys()) & current.keys()
        self._epoch += 1
        for key, served in current.items():
            if key not in guilty:
                self._served[key] = replace(served, epoch=self._epoch)
                continue
            self._rejections[key] = Rejection(self._desired[key].digest, one_line(message))
            self._roll_back(key, served)
        if current:
            self._changed()
        return guilty

    def watch(self, watcher: Watcher) -> Callable[[], None]:
        """Call the watcher with each new snapshot; returns what ends it."""
        self._watchers.append(watcher)
        return lambda: self._watchers.remove(watcher)

    def served_versions(self, keys: Iterable[Key]) -> Mapping[Key, str | None]:
        """The version under which each is served, None for those that are not."""
        return {key: self.served_version(key) for key in keys}

    def _kept(self, table: ResourceTable) -> Mapping[Key, Resource]:
        keys = [Key(type_url, error.slot) for error in table.errors for type_url in (LISTENER, FILTER)]
        return {key: self._desired[key] for key in keys if key in self._desired}

    def _form_of(self, desired: Resource) -> Resource | None:
        """The form in which a resource is served: as it is already, if its content is the same or was refused."""
        served = self._served.get(desired.key)
        if desired.key in self._rejections:
            return served
        if served is not None and served.digest == desired.digest:
            return replace(desired, epoch=served.epoch)
        return replace(desired, epoch=self._first_epoch)

    def _roll_back(self, key: Key, served: Resource) -> None:
        good = self._good.get(key)
        if good is not None and good.digest != served.digest:
            self._served[key] = replace(good, epoch=self._epoch)
        else:
            del self._served[key]
            self._good.pop(key, None)

    def _changed(self) -> Snapshot:
        self.snapshot = snapshot(self._served.values())
        for watcher in tuple(self._watchers):
            watcher(self.snapshot)
        return self.snapshot

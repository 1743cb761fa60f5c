"""The ipcache in the kernel, which two threads write: one that takes policy into force, and one that hears of names.

Neither waits long for the other: a lock is held for one batch of entries, well under a millisecond. Within it, each
writes what is true of a key then (bpf/learned.py), so their order does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from threading import Lock
from typing import Final, TypeVar

from bpf.changes import Step
from bpf.encoding import address_key
from bpf.entries import Entries, split
from bpf.layout import CAPACITY, IPCACHE_KEY
from bpf.learned import Layers
from bpf.maps import Maps, MapsError

SOME: Final = 256  # entries that are written under the lock at a time
T = TypeVar("T")


class Peers:
    """Who lives where. `policy`: what the kernel holds already."""

    def __init__(self, maps: Maps, policy: Entries) -> None:
        self._maps = maps
        self._lock = Lock()
        self._layers = Layers(policy)
        self._staged: dict[bytes, int | None] = {}

    @property
    def learned(self) -> int:
        """Addresses that names have."""
        return len(self._layers.names)

    def learn(self, lives: Mapping[bytes, int]) -> None:
        """Put identities of packed addresses in force. MapsError where there is no room: then the last of them are
        not in force, and not remembered."""
        written = False
        for addresses in _some(lives):
            with self._lock:
                written |= self._learn({address: lives[address] for address in addresses})
                self._unstage(addresses)
        if written:
            self._maps.judge_anew()

    def _learn(self, lives: Mapping[bytes, int]) -> bool:
        names = self._layers.names
        if len(names) + len(lives) > CAPACITY["ipcache"]:
            raise MapsError(f"{CAPACITY['ipcache']} addresses of names are all that the map ipcache has room for")
        before = {key: names.get(key) for key in map(address_key, lives)}
        changed = self._layers.learn(lives)
        try:
            self._write(changed)
        except MapsError:
            for key, value in before.items():
                if value is None:
                    del names[key]
                else:
                    names[key] = value
            raise
        return bool(changed)

    def forget(self, addresses: Iterable[bytes]) -> None:
        """From now on only the policy says who lives at these packed addresses. Unknown ones are no error."""
        gone = False
        for some in _some(addresses):
            with self._lock:
                gone |= self._forget(some)
                self._unstage(some)
        if gone:
            self._maps.judge_anew()

    def _forget(self, addresses: Iterable[bytes]) -> bool:
        keys = [key for key in map(address_key, addresses) if self._layers.names.pop(key, None) is not None]
        self._make_true(keys)
        return bool(keys)

    def stage(self, lives: Mapping[bytes, int | None]) -> None:
        """These are to be learned, or (None) forgotten, together with the next policy; whatever is learned or forgotten
        until then is newer."""
        with self._lock:
            self._staged |= lives

    def take_staged(self) -> None:
        """Learn and forget what was staged. MapsError where there is no room: the rest stays staged then."""
        while self._staged:
            with self._lock:
                some = dict(islice(self._staged.items(), SOME))
                self._learn({address: identity for address, identity in some.items() if identity is not None})
                self._forget(address for address, identity in some.items() if identity is None)
                self._unstage(some)

    def _unstage(self, addresses: Iterable[bytes]) -> None:
        for address in addresses:
            self._staged.pop(address, None)

    def follow(self, policy: Entries) -> None:
        """The policy's entries are these from now on; the steps that make the kernel's so are about to be taken."""
        with self._lock:
            self._layers.policy = policy

    def take(self, step: Step) -> None:
        """Take a step of the map `ipcache`, as far as names do not say otherwise. MapsError if it fails."""
        for keys in _some(split(step.keys, IPCACHE_KEY.size)):
            with self._lock:
                self._make_true(keys)

    def _make_true(self, keys: Iterable[bytes]) -> None:
        truths = {key: self._layers.truth(key) for key in keys}
        self._write({key: value for key, value in truths.items() if value is not None})
        gone = b"".join(key for key, value in truths.items() if value is None)
        if gone:
            self._maps.take(Step("ipcache", gone))

    def _write(self, entries: Entries) -> None:
        if entries:
            self._maps.take(Step("ipcache", b"".join(entries), b"".join(entries.values())))


def _some(items: Iterable[T]) -> Iterator[list[T]]:
    """In pieces of SOME."""
    rest = iter(items)
    while piece := list(islice(rest, SOME)):
        yield piece

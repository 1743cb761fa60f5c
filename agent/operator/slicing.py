"""CiliumEndpoints in batches: which CiliumEndpointSlice each belongs to. Pure.

A slice has at most a hundred endpoints of one namespace. An endpoint stays where it is; a new one goes to the fullest
slice that has room. So a pod's coming or going changes one object, which is told to every node, and nothing else moves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from policies.objects import PodKey

SLICE_MAX: Final = 100  # endpoints; Cilium's own number
OWNED: Final = {"app.kubernetes.io/managed-by": "deflector"}

Raw = dict[str, Any]


@dataclass(slots=True)
class Slice:
    """One slice as it should be. `version`: what was read of it last, "" before it is made."""

    name: str
    namespace: str
    entries: dict[str, Raw] = field(default_factory=dict)
    uid: str = ""
    version: str = ""

    def body(self) -> Raw:
        """The object."""
        meta: Raw = {"name": self.name, "labels": OWNED}
        if self.version:
            meta["resourceVersion"] = self.version
        return {"metadata": meta, "namespace": self.namespace, "endpoints": list(self.entries.values())}


class Slicing:
    """The book. `update` and `remove` say what endpoints do, `seen` and `gone` what became of slices. `dirty` are those
    that the server does not have as they should be. `fresh` makes names that nobody else has."""

    def __init__(self, fresh: Callable[[], str]) -> None:
        self.slices: dict[str, Slice] = {}
        self.dirty: set[str] = set()
        self._homes: dict[PodKey, str] = {}
        self._fresh = fresh

    def update(self, key: PodKey, entry: Raw | None) -> None:
        """An endpoint is like this; None: it has no identity yet, or is gone."""
        home = self.slices.get(self._homes.get(key, ""))
        if entry is None:
            if home is not None:
                del home.entries[key.name]
                self.dirty.add(home.name)
            self._homes.pop(key, None)
            return
        if home is None:
            home = self._with_room(key.namespace)
            self._homes[key] = home.name
        if home.entries.get(key.name) != entry:
            home.entries[key.name] = entry
            self.dirty.add(home.name)

    def seen(self, raw: Mapping[str, Any]) -> None:
        """The server has this slice. One that we do not know yet is adopted, with those endpoints that have no home."""
        meta, namespace = raw["metadata"], str(raw.get("namespace") or "")
        name = str(meta.get("name") or "")
        known = self.slices.get(name)
        has = {str(e["name"]): e for e in raw.get("endpoints") or () if isinstance(e, dict) and e.get("name")}
        if known is None:
            known = self.slices[name] = Slice(name, namespace)
            for pod, entry in has.items():
                if self._homes.setdefault(PodKey(namespace, pod), name) == name:
                    known.entries[pod] = entry
        version = str(meta.get("resourceVersion") or "")
        if _is_older(version, known.version):
            return  # of before our own write
        known.uid, known.version = str(meta.get("uid") or ""), version
        if known.entries != has:
            self.dirty.add(name)
        else:
            self.dirty.discard(name)

    def gone(self, name: str) -> None:
        """The server has no such slice any more: what was in it needs it again."""
        known = self.slices.get(name)
        if known is None:
            return
        if known.entries:
            known.uid = known.version = ""
            self.dirty.add(name)
        else:
            self.forget(name)

    def forget(self, name: str) -> None:
        """An empty slice that we have removed."""
        self.slices.pop(name, None)
        self.dirty.discard(name)

    def keep_only(self, endpoints: Mapping[PodKey, Raw]) -> None:
        """All endpoints are known now: adopted ones that there are none of go."""
        for key in [key for key in self._homes if key not in endpoints]:
            self.update(key, None)

    def _with_room(self, namespace: str) -> Slice:
        room = [s for s in self.slices.values() if s.namespace == namespace and len(s.entries) < SLICE_MAX]
        if room:
            return max(room, key=lambda found: (len(found.entries), found.name))
        made = Slice(self._fresh(), namespace)
        self.slices[made.name] = made
        return made


def _is_older(version: str, known: str) -> bool:
    """Versions of one object are numbers that grow (Kubernetes: KEP-5504)."""
    return version.isdigit() and known.isdigit() and int(version) < int(known)


def entry_of(key: PodKey, raw: Mapping[str, Any]) -> Raw | None:
    """What a slice says of an endpoint; None while it has no identity or no address."""
    status = raw.get("status") or {}
    number, networking = (status.get("identity") or {}).get("id"), status.get("networking")
    if not isinstance(number, int) or not networking:
        return None
    entry: Raw = {"name": key.name, "id": number, "networking": networking}
    if status.get("named-ports"):
        entry["named-ports"] = status["named-ports"]
    return entry

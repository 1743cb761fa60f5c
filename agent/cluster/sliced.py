"""Endpoints out of CiliumEndpointSlices: which endpoints there are, whatever slices they are in. Pure.

A slice holds up to a hundred endpoints of one namespace, and the operator moves them between slices: added to one
before or after it is removed from another. An endpoint is gone when no slice has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from policies.objects import ENDPOINT_KIND, PodKey

Raw = dict[str, Any]
_API: Final = "cilium.io/v2"


class Sliced:
    """Follows slices; each call tells what has become of endpoints: the endpoint as a CiliumEndpoint, or None."""

    def __init__(self) -> None:
        self._slices: dict[str, dict[PodKey, Raw]] = {}
        self._homes: dict[PodKey, list[str]] = {}  # slices that have it, the latest last

    def update(self, name: str, raw: Raw) -> Iterator[tuple[PodKey, Raw | None]]:
        """A slice is like this now."""
        namespace = str(raw.get("namespace") or "")
        now = {}
        for entry in raw.get("endpoints") or ():
            if isinstance(entry, dict) and isinstance(entry.get("name"), str):
                now[PodKey(namespace, entry["name"])] = entry
        before = self._slices.get(name, {})
        self._slices[name] = now
        for key, entry in now.items():
            homes = self._homes.setdefault(key, [])
            if before.get(key) != entry:
                if name in homes:
                    homes.remove(name)
                homes.append(name)
                yield key, _endpoint(key, entry)
        yield from self._leave(name, sorted(before.keys() - now.keys()))

    def remove(self, name: str) -> Iterator[tuple[PodKey, Raw | None]]:
        """A slice is gone."""
        yield from self._leave(name, sorted(self._slices.pop(name, {})))

    def _leave(self, name: str, keys: list[PodKey]) -> Iterator[tuple[PodKey, Raw | None]]:
        for key in keys:
            homes = self._homes[key]
            was_in_force = homes[-1] == name
            homes.remove(name)
            if not homes:
                del self._homes[key]
                yield key, None
            elif was_in_force:
                yield key, _endpoint(key, self._slices[homes[-1]][key])


def _endpoint(key: PodKey, entry: Raw) -> Raw:
    status = {"identity": {"id": entry.get("id")}}
    status |= {name: entry[name] for name in ("networking", "named-ports") if entry.get(name) is not None}
    metadata = {"namespace": key.namespace, "name": key.name}
    return {"apiVersion": _API, "kind": ENDPOINT_KIND, "metadata": metadata, "status": status}

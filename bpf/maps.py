"""The pinned maps of a running data path: entries to read and write, counters to read. Touches the kernel."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from bpf import sys
from bpf.changes import Step
from bpf.constants import METRIC_DIRECTIONS, METRIC_REASONS, Counter, Dir
from bpf.encoding import Settings, endpoint_key, namespace_value
from bpf.entries import Desired, group_entries
from bpf.layout import MAPS, METRIC, MapSpec

SPECS = {spec.name: spec for spec in MAPS}
ZERO = struct.pack("=I", 0)


class MapsError(Exception):
    """A map cannot be written; the message is one line that names it."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Packets that passed (reason 0) or were dropped for a reason, at the hook of this direction (0: at the helper)."""

    reason: int  # layout.Reason
    direction: int  # layout.Dir
    packets: int
    bytes: int


class Maps:
    """Open descriptors of the maps pinned in a folder. FileNotFoundError when they are not there."""

    def __init__(self, folder: Path) -> None:
        self._fds: dict[str, int] = {}
        self._settings = Lock()
        try:
            for spec in MAPS:
                self._fds[spec.name] = sys.object_get(folder / spec.name)
        except OSError:
            self.close()
            raise

    def fd(self, name: str) -> int:
        return self._fds[name]

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def realized(self) -> Desired:
        """What the kernel holds now."""
        endpoints, ipcache, services = (dict(self.entries(name)) for name in ("endpoints", "ipcache", "services"))
        return Desired(endpoints, ipcache, group_entries(*self._packed("policy")), services)

    def entries(self, name: str) -> list[tuple[bytes, bytes]]:
        return list(sys.map_entries(self._fds[name], SPECS[name]))

    def _packed(self, name: str) -> tuple[bytes, bytes]:
        """All keys and all values."""
        return sys.map_contents(self._fds[name], SPECS[name])

    def take(self, step: Step) -> None:
        """Take one step. MapsError if it fails: some of it may have been taken then."""
        try:
            self._take(step)
        except OSError as error:
            raise MapsError(_explain(SPECS[step.map], step.count, error)) from error

    def _take(self, step: Step) -> None:
        if step.values:
            sys.map_update_all(self._fds[step.map], SPECS[step.map], step.keys, step.values)
        else:
            sys.map_delete_all(self._fds[step.map], SPECS[step.map], step.keys)

    @property
    def settings(self) -> Settings:
        raw = sys.map_lookup(self._fds["settings"], ZERO, SPECS["settings"].value_size)
        return Settings.unpack(raw) if raw is not None else Settings()

    def _set(self, settings: Settings) -> None:
        sys.map_update(self._fds["settings"], ZERO, settings.pack())

    def set_helper(self, ifindex: int) -> None:
        with self._settings:
            self._set(replace(self.settings, helper=ifindex))

    def judge_anew(self) -> None:
        """From now on no packet passes on the verdict that its connection had before."""
        with self._settings:
            self._set(self.settings.after_change())

    def set_namespace(self, ifindex: int, number: int | None) -> None:
        """Where the sockets of the pod behind this interface are: the id of its network namespace; None: unknown."""
        if number is None:
            sys.map_delete(self._fds["namespaces"], endpoint_key(ifindex))
        else:
            sys.map_update(self._fds["namespaces"], endpoint_key(ifindex), namespace_value(number))

    def _per_cpu(self, name: str, index: int) -> list[bytes]:
        size = (SPECS[name].value_size + 7) & ~7
        raw = sys.map_lookup(self._fds[name], struct.pack("=I", index), size * sys.possible_cpus()) or b""
        return [raw[at : at + size] for at in range(0, len(raw), size)]

    def metrics(self) -> list[Metric]:
        """Every count that is not zero, in order of reason and direction."""
        found = []
        for index in range(METRIC_REASONS * METRIC_DIRECTIONS):
            values = [struct.unpack(METRIC.format, raw) for raw in self._per_cpu("metrics", index)]
            packets, octets = sum(p for p, _ in values), sum(b for _, b in values)
            if packets:
                reason, direction = divmod(index, METRIC_DIRECTIONS)
                found.append(Metric(reason, Dir(direction), packets, octets))
        return found

    def counters(self) -> dict[Counter, int]:
        """Events that were not told, by cause."""
        return {
            counter: sum(struct.unpack("=Q", raw)[0] for raw in self._per_cpu("counters", counter))
            for counter in Counter
        }


def _explain(spec: MapSpec, writing: int, error: OSError) -> str:
    if error.errno in (7, 12, 28):  # E2BIG, ENOMEM, ENOSPC: three ways of the kernel to say that a map is full
        return f"map {spec.name} is full ({spec.max_entries} entries, {writing} to write): select fewer peers or ports"
    return f"map {spec.name}: {error.strerror}"

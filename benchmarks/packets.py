"""What the kernel programs cost per packet, by the kernel's own statistics: under load through the proxy, and past it.

The statistics themselves cost some 20 ns per run, which is in the figures. They are off again when the block ends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import NotMeasured
from benchmarks.load import press
from benchmarks.samples import in_turns, median
from benchmarks.stage import CLIENT, HTTP_PORT, PATH, PLAIN_PORT, SERVER, Stage
from bpf import sys as bpf

ROUNDS, SECONDS = 3, 1
PROGRAMS = ("from_pod", "to_pod", "to_proxy")
LEGS = {"proxied": HTTP_PORT, "l4": PLAIN_PORT}
FIGURES = {"proxied": "tc_ns_per_packet_", "l4": "tc_ns_per_packet_l4_"}


@dataclass(frozen=True, slots=True)
class Runs:
    """How often the programs of one name have run, and for how long altogether (ns)."""

    count: int = 0
    time_ns: int = 0

    def __add__(self, other: Runs) -> Runs:
        return Runs(self.count + other.count, self.time_ns + other.time_ns)

    def __sub__(self, other: Runs) -> Runs:
        return Runs(self.count - other.count, self.time_ns - other.time_ns)

    def ns_per_run(self) -> float | None:
        """None if it did not run."""
        return self.time_ns / self.count if self.count else None


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    stage.node.await_ready()
    made = stage.deflected
    costs: dict[str, list[float | None]] = {}
    with _statistics():
        for number, leg in in_turns(list(LEGS), ROUNDS):
            stage.note(f"packets: {leg}, round {number + 1} of {ROUNDS}")
            url = f"http://{made.address(SERVER, 4)}:{LEGS[leg]}{PATH}"
            before = _runs(made.bpffs)
            press(made.namespace(CLIENT), url, seconds=SECONDS)
            after = _runs(made.bpffs)
            for program in PROGRAMS:
                costs.setdefault(FIGURES[leg] + program, []).append((after[program] - before[program]).ns_per_run())
    return {name: median(samples) for name, taken in costs.items() if (samples := _all_known(taken))}


def _all_known(taken: list[float | None]) -> list[float]:
    """Empty where there was a round without a packet: those that go past the proxy never come to its door."""
    return [] if None in taken else [sample for sample in taken if sample is not None]


@contextmanager
def _statistics() -> Iterator[None]:
    """The kernel counts run times for as long as the descriptor is open."""
    held = bpf.enable_stats()
    try:
        yield
    finally:
        os.close(held)


def _runs(bpffs: Path) -> dict[str, Runs]:
    """Program -> its runs so far, over all pinned programs of that name."""
    found: dict[str, Runs] = {}
    for path in sorted(bpffs.rglob("*")):
        if path.name in PROGRAMS:
            found[path.name] = found.get(path.name, Runs()) + _run_of(path)
    missing = [name for name in PROGRAMS if name not in found]
    if missing:
        raise NotMeasured(f"no program {' or '.join(missing)} is pinned below {bpffs}")
    return found


def _run_of(path: Path) -> Runs:
    opened = bpf.object_get(path)
    try:
        said = bpf.program_info(opened)
    finally:
        os.close(opened)
    return Runs(said.run_count, said.run_time_ns)

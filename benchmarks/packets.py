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


@dataclass(frozen=True, slots=True)
class Runs:
    """How often the programs of one name have run, and for how long altogether (ns)."""

    count: int = 0
    time_ns: int = 0

    def __add__(self, other: Runs) -> Runs:
        return Runs(self.count + other.count, self.time_ns + other.time_ns)

    def __sub__(self, other: Runs) -> Runs:
        return Runs(self.count - other.count, self.time_ns - other.time_ns)


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark."""
    stage.node.await_ready()
    made = stage.deflected
    costs: dict[str, list[float]] = {}
    with _statistics():
        for number, leg in in_turns(list(LEGS), ROUNDS):
            stage.note(f"packets: {leg}, round {number + 1} of {ROUNDS}")
            url = f"http://{made.address(SERVER, 4)}:{LEGS[leg]}{PATH}"
            before = _runs(made.bpffs)
            press(made.namespace(CLIENT), url, seconds=SECONDS)
            after = _runs(made.bpffs)
            for program in PROGRAMS:
                ran = after[program] - before[program]
                if ran.count:
                    costs.setdefault(_figure(leg, program), []).append(ran.time_ns / ran.count)
    return {_figure(leg, program): median(costs[_figure(leg, program)]) for leg, program in _measured()}


def _measured() -> Iterator[tuple[str, str]]:
    """Packets that go past the proxy never come to its door."""
    yield from (("proxied", program) for program in PROGRAMS)
    yield from (("l4", program) for program in PROGRAMS if program != "to_proxy")


def _figure(leg: str, program: str) -> str:
    return f"tc_ns_per_packet_{program}" if leg == "proxied" else f"tc_ns_per_packet_{leg}_{program}"


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
    found = dict.fromkeys(PROGRAMS, Runs())
    for path in sorted(bpffs.rglob("*")):
        if path.name in found and path.is_file():
            found[path.name] += _run_of(path)
    missing = [name for name, runs in found.items() if not runs.count]
    if missing:
        raise NotMeasured(f"no program {' or '.join(missing)} is pinned below {bpffs}, or it never ran")
    return found


def _run_of(path: Path) -> Runs:
    opened = bpf.object_get(path)
    try:
        said = bpf.program_info(opened)
    finally:
        os.close(opened)
    return Runs(said.run_count, said.run_time_ns)

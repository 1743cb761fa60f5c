"""The bench: runs benchmarks, prints the scorecard, writes build/bench.json.

    python -m benchmarks [--only NAME]

The table goes to stdout, progress to stderr. Exit code 0: everything asked for was measured, whatever the targets say;
1: something could not be measured; 2: usage, or the machine does not allow it. Ctrl-C ends whatever was started.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from rich.console import Console

from benchmarks import (
    cluster,
    dns,
    enforcement,
    flow_flood,
    intake,
    kafka,
    memory,
    observe_last,
    packets,
    restart,
    rules,
    scorecard,
    throughput,
    visibility,
)
from benchmarks import compile as compiling
from benchmarks.errors import NotMeasured
from benchmarks.figures import UnknownFigure, benchmarks_for
from benchmarks.stage import Stage
from conformance.errors import EnvironmentFailure

OUTPUT = Path("build/bench.json")

# In this order: memory wants a fresh node, and the many rules of `rules` would be felt by whatever came after.
BENCHMARKS: dict[str, Callable[[Stage], dict[str, float]]] = {
    "intake": intake.measure,
    "flow_flood": flow_flood.measure,
    "observe_last": observe_last.measure,
    "compile": compiling.measure,
    "kafka": kafka.measure,
    "cluster": cluster.measure,
    "memory": memory.measure,
    "enforcement": enforcement.measure,
    "visibility": visibility.measure,
    "throughput": throughput.measure,
    "packets": packets.measure,
    "dns": dns.measure,
    "restart": restart.measure,
    "rules": rules.measure,
}


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure Deflector on this machine.")
    parser.add_argument("--only", metavar="NAME", help="run the benchmark that yields this figure")
    arguments = parser.parse_args()
    progress = Console(stderr=True, highlight=False)
    try:
        wanted = benchmarks_for(arguments.only)
    except UnknownFigure as error:
        return _refused(str(error))
    if os.geteuid() != 0:
        return _refused("the bench makes network namespaces and programs the kernel: run it as root")
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        readings, failures = _measure([name for name in BENCHMARKS if name in wanted], progress)
    except KeyboardInterrupt:
        return _refused("interrupted; what was started has been stopped")
    _publish(readings, progress, keep=arguments.only is not None)
    for line in failures:
        print(f"bench: {line}", file=sys.stderr)
    return 1 if failures else 0


def _refused(why: str) -> int:
    print(f"bench: {why}", file=sys.stderr)
    return 2


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _measure(names: list[str], progress: Console) -> tuple[dict[str, float], list[str]]:
    """Run the benchmarks, one after the other; one that fails hinders no other."""
    readings: dict[str, float] = {}
    failures: list[str] = []
    with ExitStack() as stack:
        shown = stack.enter_context(progress.status("bench"))
        stage = Stage(stack, _noter(progress, shown.update))
        for name in names:
            try:
                readings |= BENCHMARKS[name](stage)
            except (NotMeasured, EnvironmentFailure) as error:
                failures.append(f"{name}: not measured: {error}")
        stage.note("cleaning up")
    return readings, failures


def _noter(progress: Console, update: Callable[[str], None]) -> Callable[[str], None]:
    """On a terminal progress is one line that changes, elsewhere a line each."""
    return update if progress.is_terminal else lambda line: print(f"bench: {line}", file=sys.stderr, flush=True)


def _publish(readings: dict[str, float], progress: Console, *, keep: bool) -> None:
    """Print and write the readings; `keep`: also the figures that benchmarks of earlier runs have written."""
    if not readings:
        return
    Console(highlight=False, soft_wrap=True).print(scorecard.table(readings))
    before = scorecard.read(OUTPUT) if keep else {}
    scorecard.write(OUTPUT, scorecard.merged(before, scorecard.document(readings)))
    progress.print(f"written to {OUTPUT}", style="dim")


if __name__ == "__main__":
    sys.exit(main())

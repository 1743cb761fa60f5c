"""50,000 flows per second, one in a hundred denied, for a minute: does memory stay flat, is any denial lost, do the
counters add up, and does one reader hold up another?

The node's parts run in one process (benchmarks.flood_node: access-log service, observer, Hubble API, metrics, two
exporters), fed by a second one over the wire; three more follow: one takes all flows, one the denials, one asks for
all and never reads. What two cores cannot carry is lost to the reader that is too slow, and counted; it is never a
denial. `python -m benchmarks.flow_flood SECONDS` runs it alone.
"""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.errors import NotMeasured
from benchmarks.samples import median
from benchmarks.stage import Stage
from benchmarks.usage import cpu_us, rss_mb

OFFERED = 50_000  # flows per second
SECONDS = 60.0
WARM = 0.25  # share of the time after which memory should not grow any more
SETTLE = 60.0  # seconds that readers may take to come to the end
PATIENCE = 20.0  # seconds for an answer
READERS = ("metrics", "export_all", "export_denials", "follower_all", "follower_denials", "follower_stalled")
FOLLOWERS = ("all", "denials", "stalled")
LAST = 5  # readings of memory at the end, of which the median counts


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark; needs no galaxy."""
    stage.note(f"flow flood: {OFFERED:,} flows/s for {SECONDS:.0f} s")
    return flood(SECONDS)


def flood(seconds: float) -> dict[str, float]:
    """One flood of so many seconds. Raises NotMeasured also where the counters do not add up."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="deflector-flood-")))
        node = Asked(stack.enter_context(_module("flood_node", str(folder))))
        node.until_readers(3)
        followers = {}
        for number, kind in enumerate(FOLLOWERS, 4):
            socket = str(folder / "hubble.sock")
            followers[kind] = stack.enter_context(_module("flood_follower", socket, kind))
            node.until_readers(number)
        before = cpu_us(node.pid)
        feeder = stack.enter_context(_module("flood_feeder", str(folder / "xds.sock"), str(OFFERED), str(seconds)))
        memory = _watch(feeder, node)
        spent = cpu_us(node.pid) - before
        fed = json.loads(_last_words(feeder))
        settled = node.settled()
        told = {kind: _ended(one) for kind, one in followers.items() if kind != "stalled"}
        return _figures(settled, fed, told) | {
            "flow_flood_rss_growth_mb": _growth(memory),
            "flow_flood_rss_mb": memory[-1],
            "flow_flood_node_cpu_cores": spent / 1e6 / fed["seconds"],
        }


class Asked:
    """The node's process, and what it says of itself."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.pid = process.pid

    def document(self) -> dict[str, Any]:
        if self._process.stdin is None or self._process.stdout is None:
            raise NotMeasured("the node has no pipes")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            raise NotMeasured(f"the node under flood has not answered for {PATIENCE:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise NotMeasured(f"the node under flood has ended with code {self._process.wait(PATIENCE)}")
        return dict(json.loads(line))

    def until_readers(self, count: int) -> None:
        """Wait until so many read."""
        until = time.monotonic() + PATIENCE
        while len(self.document()["readers"]) - 1 < count:
            if time.monotonic() > until:
                raise NotMeasured(f"{count} readers of flows are not there after {PATIENCE:.0f} s")
            time.sleep(0.05)

    def settled(self) -> dict[str, Any]:
        """What it says when every reader but the stalled one has come to the end, and the exporters have written."""
        until = time.monotonic() + SETTLE
        while time.monotonic() < until:
            found = self.document()
            produced, readers = found["ring"]["produced"], dict(zip(READERS, found["readers"][1:], strict=True))
            ended = [sum(account.values()) == produced for name, account in readers.items() if name != READERS[-1]]
            if all(ended) and all(_waiting(found, name) == 0 for name in ("all", "denials")):
                return found
            time.sleep(0.2)
        raise NotMeasured(f"the readers have not come to the end {SETTLE:.0f} s after the flood: {found}")


def _waiting(found: Mapping[str, Any], name: str) -> float:
    outcomes = {key: value for key, value in found["exporters"].items() if key.startswith(f"{name} ")}
    return 2 * float(outcomes[f"{name} offered"]) - float(sum(outcomes.values()))


def _figures(
    found: Mapping[str, Any], fed: Mapping[str, float], told: Mapping[str, Mapping[str, int]]
) -> dict[str, float]:
    ring = found["ring"]
    readers = dict(zip(READERS, found["readers"][1:], strict=True))
    _check(found, readers, told)
    if ring["denials"] != fed["denials"] or found["malformed"]:
        raise NotMeasured(f"{fed['denials']:.0f} denials were fed, {ring['denials']} arrived")
    denials, exported = ring["denials"], found["exporters"]
    lost = (
        denials - told["denials"]["flows"],
        denials - exported["denials written"],
        denials - found["drops_counted"],
    )
    seen = {name: (account["sent"] + account["passed_over"]) / ring["produced"] for name, account in readers.items()}
    return {
        "flow_flood_lost_denials": max(lost),
        "flow_flood_flows_per_second": ring["produced"] / fed["seconds"],
        "flow_flood_lost_written_percent": 100
        * _share(exported["all dropped"] + exported["all failed"], exported, "all"),
        **{f"flow_flood_looked_at_percent_{name}": 100 * share for name, share in seen.items() if name in READERS[:-1]},
    }


def _share(part: float, exported: Mapping[str, float], name: str) -> float:
    return part / max(1.0, exported[f"{name} offered"])


def _check(
    found: Mapping[str, Any], readers: Mapping[str, Mapping[str, int]], told: Mapping[str, Mapping[str, int]]
) -> None:
    """Every pair of these must be one and the same number. Raises NotMeasured."""
    ring = found["ring"]
    pairs = {
        "flows in the ring": (ring["produced"], ring["skipped"] + ring["held"] + ring["overwritten"]),
        "denials in the ring": (ring["denials"], ring["denials_held"] + ring["denials_overwritten"]),
        "flows that metrics counted": (found["flows_counted"], readers["metrics"]["sent"]),
        **{
            f"flows and losses that the follower of {kind} was told": (
                (one["flows"], one["lost"]),
                (readers[f"follower_{kind}"]["sent"], readers[f"follower_{kind}"]["lost"]),
            )
            for kind, one in told.items()
        },
        **{f"flows of exporter {name}": (_waiting(found, name), 0.0) for name in ("all", "denials")},
    }
    for what, (one, other) in pairs.items():
        if one != other:
            raise NotMeasured(f"the counters do not add up: {what}: {one} and {other}")


def _watch(feeder: subprocess.Popen[str], node: Asked) -> list[float]:
    """The node's memory every second until the feeder has ended."""
    memory = []
    while feeder.poll() is None:
        memory.append(rss_mb(node.pid))
        time.sleep(1.0)
    return memory


def _growth(memory: list[float]) -> float:
    """From when it was warm to the end."""
    warm = memory[round(len(memory) * WARM) :]
    return median(warm[-LAST:]) - median(warm[:LAST])


@contextmanager
def _module(name: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """One of our programs, ended with the block."""
    argv = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    with subprocess.Popen(argv, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def _ended(process: subprocess.Popen[str]) -> dict[str, int]:
    """End a follower in peace; its last words."""
    process.terminate()
    return dict(json.loads(_last_words(process)))


def _last_words(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise NotMeasured(f"process {process.pid} of the flood ended with code {process.returncode}")
    return out


if __name__ == "__main__":
    print(json.dumps(flood(float(sys.argv[1])), indent=1))

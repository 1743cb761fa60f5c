"""What compiling policies costs: from nothing, after an edit, after one identity more; and how cost grows.

Each size is measured in a fresh process, so that memory is its own: `python -m benchmarks.compile POLICIES` prints one
JSON object. CPU time of one thread, so that neighbours on a shared core do not count; medians of many changes. The
cluster is that of benchmarks.compile_world: 10,000 identities, 100 endpoints on this node, each selected by some twenty
policies out of a thousand.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks.compile_world import CLUSTERWIDE_EVERY, Cluster, cluster, edited, pod, pod_key
from benchmarks.errors import NotMeasured
from benchmarks.figures import POLICY_COUNTS
from benchmarks.stage import Stage
from policies.compiling.compiler import Compiler
from policies.compiling.identity import IdentityAllocator
from policies.compiling.slots import SlotBook, assign
from policies.ir import NodePolicy
from policies.objects import ObjectKey
from policies.world import World

IDENTITIES, LOCAL = 10_000, 100
MAIN = 1_000  # the size that the targets are for
CHANGES = 40  # of each kind, for a median
SECONDS_MAX = 600.0  # for one size
_HOST = ("192.0.2.1",)


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark; needs no galaxy."""
    readings: dict[str, float] = {}
    for size in POLICY_COUNTS:
        stage.note(f"compile: {size:,} policies, {IDENTITIES:,} identities")
        found = _in_a_fresh_process(size)
        readings |= {f"{name}_{size}": value for name, value in found.items() if name in CURVE}
        if size == MAIN:
            readings |= found
    return readings


CURVE = ("compile_cold_s", "policy_edit_ms", "identity_add_ms", "compile_rss_mb")


def _in_a_fresh_process(policies: int) -> dict[str, float]:
    argv = [sys.executable, "-m", "benchmarks.compile", str(policies)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    if done.returncode:
        words = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise NotMeasured(f"compiling {policies} policies ended with code {done.returncode}: {words[0]}")
    return dict(json.loads(done.stdout))


class _Bench:
    """One node, and the time of whatever is done to it."""

    def __init__(self, policies: int) -> None:
        self._cluster: Cluster = cluster(policies, LOCAL, IDENTITIES)
        self._compiler = Compiler(IdentityAllocator())
        self._world = self._cluster.world
        self._book = SlotBook()

    def run(self) -> dict[str, float]:
        before = _rss_mb()
        cold, node = self._compile()
        if not any(policy.ingress.enforced for policy in node.policies):
            raise SystemExit("nothing was compiled")
        first_slots = self._assign(node)
        edits = [self._take(world) for world in self._edited(is_clusterwide=False)]
        broad = [self._take(world) for world in self._edited(is_clusterwide=True)]
        adds = [self._take(world) for world in self._grown()]
        found = {
            "compile_cold_s": cold,
            "policy_edit_ms": _median_ms(compiling for compiling, _ in edits),
            "identity_add_ms": _median_ms(compiling for compiling, _ in adds),
            "compile_rss_mb": _rss_mb(),
            "compile_rss_before_mb": before,
            "slots_cold_ms": first_slots * 1e3,
            "slots_edit_ms": _median_ms(assigning for _, assigning in edits),
            "slots_identity_add_ms": _median_ms(assigning for _, assigning in adds),
        }
        return found | ({"clusterwide_edit_ms": _median_ms(compiling for compiling, _ in broad)} if broad else {})

    def _take(self, world: World) -> tuple[float, float]:
        self._world = world
        seconds, node = self._compile()
        return seconds, self._assign(node)

    def _compile(self) -> tuple[float, NodePolicy]:
        start = time.thread_time()
        compiled = self._compiler.compile(self._world, self._cluster.local, _HOST, 1)
        return time.thread_time() - start, compiled.node

    def _assign(self, node: NodePolicy) -> float:
        start = time.thread_time()
        _, self._book = assign(node, self._book)
        return time.thread_time() - start

    def _edited(self, *, is_clusterwide: bool) -> Iterator[World]:
        """One world after the other, each with one policy rewritten."""
        by_number = {int(key.name.partition("-")[2]): key for key in self._world.policies}
        chosen = [n for n in by_number if (n % CLUSTERWIDE_EVERY == CLUSTERWIDE_EVERY - 1) is is_clusterwide]
        for i in range(min(CHANGES, len(chosen))):
            number = chosen[i * 37 % len(chosen)]
            key: ObjectKey = by_number[number]
            after = edited(self._world.policies[key], number, seed=1_000 + i)
            yield replace(self._world, policies={**self._world.policies, key: after})

    def _grown(self) -> Iterator[World]:
        """One world after the other, each with one pod more, whose labels nobody else has."""
        for i in range(CHANGES):
            number = IDENTITIES + 41 * i
            pods = {**self._world.pods, pod_key(number): pod(number)}
            yield replace(self._world, pods=dict(sorted(pods.items())))


def _median_ms(seconds: Iterator[float]) -> float:
    return statistics.median(seconds) * 1e3


def _rss_mb() -> float:
    """The most that the process ever had in memory."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(_Bench(int(sys.argv[1])).run()))

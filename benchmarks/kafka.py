"""What the Kafka proxy costs a producer: throughput of 1 KB messages in batches, and the time it adds to one alone.

Client, broker (librdkafka's mock cluster) and proxy are processes in one network namespace, on the cores that there
are. What the client sends to the broker is redirected to the proxy by nftables, or, in the other leg, is not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from benchmarks.errors import NotMeasured
from benchmarks.samples import in_turns, median, paired_ratio, percentile
from benchmarks.stage import Stage
from conformance import netns

ROUNDS, MESSAGES = 5, 400_000
ALONE_ROUNDS, ALONE = 5, 2_000
LEGS = ("direct", "through")
PORT = 15500
PATIENCE = 120.0  # seconds for one round
MB = 1024 / 1e6  # of one message


def measure(stage: Stage) -> dict[str, float]:
    """All figures of this benchmark; needs no galaxy."""
    with ExitStack() as stack:
        kafka = stack.enter_context(_kafka())
        seconds: dict[str, list[float]] = {leg: [] for leg in LEGS}
        for number, leg in in_turns(LEGS, ROUNDS):
            stage.note(f"kafka: produce {leg}, round {number + 1} of {ROUNDS}")
            seconds[leg] += kafka.run(leg, "produce", MESSAGES)
        alone: dict[str, list[list[float]]] = {leg: [] for leg in LEGS}
        for number, leg in in_turns(LEGS, ALONE_ROUNDS):
            stage.note(f"kafka: one by one {leg}, round {number + 1} of {ALONE_ROUNDS}")
            alone[leg].append(kafka.run(leg, "one_by_one", ALONE))
        spent = kafka.spent()
    added = {
        share: median(
            percentile(through, share) - percentile(direct, share)
            for direct, through in zip(alone["direct"], alone["through"], strict=True)
        )
        for share in (0.5, 0.99)
    }
    return {
        "kafka_throughput_ratio": paired_ratio(seconds["direct"], seconds["through"]),
        "kafka_direct_mb_per_second": MESSAGES * MB / median(seconds["direct"]),
        "kafka_through_mb_per_second": MESSAGES * MB / median(seconds["through"]),
        "kafka_added_p50_us": added[0.5] * 1e6,
        "kafka_added_p99_us": added[0.99] * 1e6,
        "kafka_direct_p50_us": median(percentile(one, 0.5) for one in alone["direct"]) * 1e6,
        "kafka_proxy_cpu_s_per_gb": spent / (ROUNDS * MESSAGES * MB / 1e3),
    }


class Kafka:
    """A broker and the proxy in a namespace."""

    def __init__(self, namespace: str, stack: ExitStack) -> None:
        self._namespace = namespace
        self._broker = stack.enter_context(self._started("broker"))
        self._server = _line(self._broker)
        self._proxy = stack.enter_context(self._started("proxy", str(PORT)))
        _line(self._proxy)
        self._tool("ip", "rule", "add", "priority", "9", "fwmark", "0x200/0xf00", "lookup", "2004")
        self._tool("ip", "route", "add", "local", "default", "dev", "lo", "table", "2004")
        self._redirect(leg="direct")

    def run(self, leg: str, role: str, count: int) -> list[float]:
        """What the client says, in seconds. Raises NotMeasured where it fails."""
        self._redirect(leg)
        with self._started(role, self._server, str(count)) as client:
            try:
                said, complaint = client.communicate(timeout=PATIENCE)
            except subprocess.TimeoutExpired:
                raise NotMeasured(f"{role} did not end within {PATIENCE:.0f} s") from None
        if client.returncode:
            raise NotMeasured(f"{role}: {complaint.strip() or 'it failed'}")
        return [float(word) for word in said.split()]

    def spent(self) -> float:
        """Seconds of CPU that the proxy has spent; it has ended then."""
        assert self._proxy.stdin is not None
        self._proxy.stdin.close()
        return float(_line(self._proxy))

    def _redirect(self, leg: str) -> None:
        """By the marks of docs/architecture.md section B."""
        port = self._server.rpartition(":")[2]
        rules = (
            "table ip bench {\n"
            "  chain out { type route hook output priority mangle;\n"
            f"    tcp dport {port} meta mark & 0xf00 == 0 meta mark set 0x200\n  }}\n"
            "  chain pre { type filter hook prerouting priority mangle;\n"
            f"    tcp dport {port} meta mark & 0xf00 == 0x200 tproxy to :{PORT} accept\n  }}\n}}\n"
        )
        self._tool("nft", "-f", "-", stdin="flush ruleset\n" + (rules if leg == "through" else ""))

    def _tool(self, *words: str, stdin: str = "") -> None:
        netns.tool(netns.inside(self._namespace, words), stdin)

    @contextmanager
    def _started(self, *role: str) -> Iterator[subprocess.Popen[str]]:
        argv: Sequence[str] = [sys.executable, "-m", "benchmarks.kafka_roles", *role]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            netns.inside(self._namespace, argv), stdin=pipe, stdout=pipe, stderr=pipe, text=True, start_new_session=True
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def _kafka() -> Iterator[Kafka]:
    namespace = f"bench-kafka-{os.getpid()}"
    netns.tool(["ip", "netns", "add", namespace])
    try:
        netns.tool(["ip", "-n", namespace, "link", "set", "lo", "up"])
        with ExitStack() as stack:
            yield Kafka(namespace, stack)
    finally:
        netns.tool(["ip", "netns", "del", namespace])


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = process.stdout.readline().strip()
    if not said:
        process.kill()
        raise NotMeasured(f"kafka: {process.communicate()[1].strip().splitlines()[-1:] or 'a process said nothing'}")
    return said

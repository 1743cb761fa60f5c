"""Load by wrk: closed loop, keep-alive connections, from inside a pod. A request that fails spoils the measurement."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import NotMeasured
from conformance import netns

REPORT = Path(__file__).with_name("report.lua")
CONNECTIONS = 16
GRACE = 15.0  # seconds that wrk may take beyond its duration


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What wrk saw. Seconds are those that it really took."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rps(self) -> float:
        return self.requests / self.seconds


def parse_report(output: str) -> LoadReport:
    """Read the last line that report.lua makes wrk print. Raises NotMeasured if a request failed or none was made."""
    lines = output.strip().splitlines()
    try:
        seen = json.loads(lines[-1])
    except (IndexError, ValueError):
        raise NotMeasured(f"wrk did not report: {' / '.join(lines[-2:]) or 'no output'}") from None
    if seen["refused"] or seen["broken"]:
        raise NotMeasured(f"{seen['refused']} requests were refused and {seen['broken']} broke: nothing to compare")
    if not seen["requests"]:
        raise NotMeasured("wrk made no request within its time")
    return LoadReport(seen["requests"], seen["duration_us"] / 1e6, seen["p50_us"] / 1e3, seen["p99_us"] / 1e3)


def press(namespace: str, url: str, *, seconds: int, connections: int = CONNECTIONS) -> LoadReport:
    """Load the URL for that long and report. Raises NotMeasured."""
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(REPORT), url]
    wrk = subprocess.Popen(
        netns.inside(namespace, argv),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = wrk.communicate(timeout=seconds + GRACE)
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"wrk did not end within {seconds + GRACE:.0f} s") from None
    finally:
        if wrk.poll() is None:
            wrk.kill()
            wrk.wait()
    return parse_report(output)

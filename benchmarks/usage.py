"""What a process has used, as /proc tells it: CPU time and memory."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.errors import NotMeasured

TICK = 1e6 / os.sysconf("SC_CLK_TCK")  # microseconds


def cpu_us(pid: int) -> float:
    """User and system time of all threads so far, in microseconds. The clock ticks every 10 ms."""
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK  # proc(5): utime is the 14th field, stime the 15th


def rss_mb(pid: int) -> float:
    """Resident memory (VmRSS), in MB of 1,048,576 bytes."""
    return _kilobytes(_read(pid, "status"), "VmRSS:") / 1024


def peak_rss_mb(pid: int) -> float:
    """The most that was ever resident (VmHWM)."""
    return _kilobytes(_read(pid, "status"), "VmHWM:") / 1024


def pss_mb(pid: int) -> float:
    """Resident memory, with shared pages divided among those who share them."""
    return _kilobytes(_read(pid, "smaps_rollup"), "Pss:") / 1024


def _kilobytes(text: str, key: str) -> int:
    return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(key))


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError as error:
        raise NotMeasured(f"process {pid} is not there any more ({error.strerror})") from None

"""Points in time as people type them into --since and --until: a duration ago, or a date. Pure: now is an argument."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from google.protobuf.timestamp_pb2 import Timestamp

UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
DURATION = re.compile(r"[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)\Z")
PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
ZONE = r"(?P<zone>Z|[+-]\d\d:\d\d)"
DATES = tuple(
    re.compile(pattern + r"\Z")
    for pattern in (
        r"(?P<date>\d{4}-\d\d-\d\d)",
        rf"(?P<date>\d{{4}}-\d\d-\d\d)T(?P<clock>\d\d){ZONE}",
        rf"(?P<date>\d{{4}}-\d\d-\d\d)T(?P<clock>\d\d:\d\d){ZONE}",
        rf"(?P<date>\d{{4}}-\d\d-\d\d)T(?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<fraction>\d{{1,9}}))?{ZONE}",
    )
)
RFC1123Z = "%a, %d %b %Y %H:%M:%S %z"


class TimeError(ValueError):
    """Text that is neither a duration nor a date."""


def parse_time(text: str, now_ns: int) -> Timestamp:
    """`5m`, `1h30m`, `2026-01-14`, `2026-01-14T10:11:12.345Z`, `Wed, 14 Jan 2026 10:11:12 +0000`. Raises TimeError."""
    if DURATION.match(text):
        return _timestamp(now_ns - duration_ns(text))
    for pattern in DATES:
        match = pattern.match(text)
        if match:
            return _from_date(match, text)
    try:
        moment = datetime.strptime(text, RFC1123Z)
    except ValueError:
        raise TimeError(f"failed to convert {text} to time: 5m, 1h30m or 2026-01-14T10:11:12Z are") from None
    return _timestamp(round(moment.timestamp()) * 10**9)


def duration_ns(text: str) -> int:
    """A Go duration in ns; the caller has matched it with DURATION."""
    total = sum(_part_ns(number, unit) for number, unit in PART.findall(text))
    return -total if text.startswith("-") else total


def _part_ns(number: str, unit: str) -> int:
    whole, _, fraction = number.partition(".")
    size = UNITS[unit]
    return int(whole or 0) * size + (int(fraction) * size // 10 ** len(fraction) if fraction else 0)


def _from_date(match: re.Match[str], text: str) -> Timestamp:
    parts = match.groupdict()
    clock = (parts.get("clock") or "00") + ":00:00"
    zone = parts.get("zone") or "Z"
    sign = -1 if zone[0] == "-" else 1
    offset = timedelta() if zone == "Z" else sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
    try:
        moment = datetime.strptime(f"{parts['date']} {clock[:8]}", "%Y-%m-%d %H:%M:%S")
        moment = moment.replace(tzinfo=timezone(offset))
    except ValueError:
        raise TimeError(f"failed to convert {text} to time: there is no such date") from None
    epoch = datetime(1970, 1, 1, tzinfo=timezone(timedelta()))
    seconds = (moment - epoch) // timedelta(seconds=1)
    nanos = int((parts.get("fraction") or "0").ljust(9, "0"))
    return _timestamp(seconds * 10**9 + nanos)


def _timestamp(nanoseconds: int) -> Timestamp:
    seconds, nanos = divmod(nanoseconds, 10**9)
    return Timestamp(seconds=seconds, nanos=nanos)

"""What Go's standard library does to text where Hubble's output shows it: time layouts, host:port, columns. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_SECOND = -62135596800  # 0001-01-01
LAST_SECOND = 253402300799  # 9999-12-31
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def _date(t: datetime) -> str:
    return f"{t.year:04}-{t.month:02}-{t.day:02}"


def _clock(t: datetime) -> str:
    return f"{t.hour:02}:{t.minute:02}:{t.second:02}"


def _rfc3339(digits: int) -> Callable[[datetime, int], str]:
    """With up to so many digits of the second; trailing zeros are left out."""

    def text(t: datetime, nanos: int) -> str:
        fraction = f".{nanos:09}"[: digits + 1].rstrip("0").rstrip(".")
        return f"{_date(t)}T{_clock(t)}{fraction}Z"

    return text


# The names of --time-format (compared in lower case) -> (UTC time, ns of the second) -> text
TIME_FORMATS: dict[str, Callable[[datetime, int], str]] = {
    "StampMilli": lambda t, n: f"{MONTHS[t.month - 1]} {t.day:2} {_clock(t)}.{n // 1_000_000:03}",
    "YearMonthDay": lambda t, n: _date(t),
    "YearMonthDayHour": lambda t, n: f"{_date(t)}T{t.hour:02}Z",
    "YearMonthDayHourMinute": lambda t, n: f"{_date(t)}T{t.hour:02}:{t.minute:02}Z",
    "RFC3339": _rfc3339(0),
    "RFC3339Milli": _rfc3339(3),
    "RFC3339Micro": _rfc3339(6),
    "RFC3339Nano": _rfc3339(9),
    "RFC1123Z": lambda t, n: f"{DAYS[t.weekday()]}, {t.day:02} {MONTHS[t.month - 1]} {t.year:04} {_clock(t)} +0000",
}


def timestamp_text(layout: Callable[[datetime, int], str], time: Any) -> str:
    """A google.protobuf.Timestamp in UTC; N/A where it is absent (None) or out of range."""
    if time is None or not FIRST_SECOND <= time.seconds <= LAST_SECOND or not 0 <= time.nanos < 1_000_000_000:
        return "N/A"
    return layout(EPOCH + timedelta(seconds=time.seconds), time.nanos)


def join_path(*parts: str) -> str:
    """path.Join: empty parts are left out, the rest is cleaned."""
    joined = "/".join(part for part in parts if part)
    if not joined:
        return ""
    clean = posixpath.normpath(joined)
    return clean[1:] if clean.startswith("//") else clean


def join_host_port(host: str, port: str) -> str:
    """net.JoinHostPort: a host with a colon goes in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def grouped(number: int) -> str:
    """1234567 -> 1,234,567"""
    return f"{number:,}"


def duration_text(nanoseconds: int) -> str:
    """time.Duration.String: 1h2m3.5s, 1.5ms, 0s."""
    if nanoseconds > (1 << 63) - 1:
        return f"{nanoseconds}ns"
    if nanoseconds == 0:
        return "0s"
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if nanoseconds < size * 1_000:
            return f"{_decimal(nanoseconds, size)}{unit}"
    minutes, rest = divmod(nanoseconds, 60_000_000_000)
    seconds = f"{_decimal(rest, 1_000_000_000)}s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{seconds}"
    return f"{minutes}m{seconds}" if minutes else seconds


def _decimal(number: int, size: int) -> str:
    whole, rest = divmod(number, size)
    digits = len(str(size)) - 1
    return f"{whole}.{rest:0{digits}}".rstrip("0").rstrip(".") if rest else str(whole)


def quoted(text: str) -> str:
    """strconv.Quote, for messages."""
    named = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}
    named |= {'"': '\\"', "\\": "\\\\"}
    return '"' + "".join(named.get(char) or _printable(char) for char in text) + '"'


def _printable(char: str) -> str:
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def aligned(text: str, *, minimum: int = 2, padding: int = 3) -> str:
    """text/tabwriter with blanks: tab-terminated cells of adjacent lines form columns of equal width.

    The last cell of a line, which no tab ends, belongs to no column; a form feed ends the line and all columns.
    """
    return "\n".join(_aligned(page, (minimum, padding)) for page in text.split("\f"))


def _aligned(page: str, widths: tuple[int, int]) -> str:
    lines = [line.replace("\v", "\t").split("\t") for line in page.split("\n")]
    out: list[list[str]] = [[] for _ in lines]
    _align(lines, out, (0, len(lines)), 0, widths)
    return "\n".join("".join([*cells, line[-1]]) for cells, line in zip(out, lines, strict=True))


def _align(
    lines: list[list[str]], out: list[list[str]], block: tuple[int, int], column: int, widths: tuple[int, int]
) -> None:
    """Pad one column within a block of lines, then the columns to its right, block by block."""
    at, end = block
    while at < end:
        if column >= len(lines[at]) - 1:
            at += 1
            continue
        last = at
        while last < end and column < len(lines[last]) - 1:
            last += 1
        cells = [line[column] for line in lines[at:last]]
        width = max(widths[0], *(len(cell) + widths[1] for cell in cells))
        for line, cell in zip(out[at:last], cells, strict=True):
            line.append(cell.ljust(width))
        _align(lines, out, (at, last), column + 1, widths)
        at = last

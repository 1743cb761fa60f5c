"""The bypass corpus: tricks to get a request past an HTTP policy, and what a server may make of one that arrives. Pure.

    [policy]                          what is allowed: METHOD | PATH (regex) | HOST (regex) | NAME: VALUE (or nothing)
    [any other section]               tricks: WIRE | ANSWERS | SENT | WHY

WIRE is `target` (SENT is the target of an otherwise ordinary GET), `http1` (SENT is all bytes of a connection) or
`http2` (SENT are fields, NAME=VALUE, between spaces). ANSWERS are the statuses that the client must see, in order;
`closed` is a connection or a stream that ends without one. In SENT \\r \\n \\t \\xNN \\\\ are escapes, and {host} is a
good Host line. `#` begins a comment line.

Whoever drives the corpus records what the server received and asks `trespass` about each: it reads the request in every
way that a server might, and all readings must be allowed. So a trick fails even if only some servers fall for it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).parent / "suites" / "bypass.txt"
HOST: Final = "public.example"
CLOSED: Final = "closed"
POLICY: Final = "policy"
READINGS_MAX: Final = 2000  # of one target; more is taken for a trespass

_PLACEHOLDERS: Final = {"{host}": f"Host: {HOST}"}
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-f]{2})|([rnt\\]))")
_ESCAPES: Final = {"r": "\r", "n": "\n", "t": "\t", "\\": "\\"}


class CorpusError(ValueError):
    """A line that does not keep to the schema; the text names its number."""


class Wire(StrEnum):
    """How a trick is sent."""

    TARGET = "target"
    HTTP1 = "http1"
    HTTP2 = "http2"


@dataclass(frozen=True, slots=True)
class Allowed:
    """One rule of the policy. `header` is a name and its value, or nothing."""

    method: str
    path: str
    host: str
    header: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Trick:
    """One line of the corpus. `sent` holds bytes as Latin-1."""

    line: int
    section: str
    wire: Wire
    answers: tuple[str, ...]
    sent: str
    why: str

    def raw(self) -> bytes:
        """What goes over an HTTP/1 connection."""
        if self.wire is Wire.TARGET:
            return f"GET {self.sent} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode("latin-1")
        return self.sent.encode("latin-1")

    def fields(self) -> tuple[tuple[bytes, bytes], ...]:
        """The fields of an HTTP/2 request, in order."""
        pairs = (field.partition("=") for field in self.sent.split(" "))
        return tuple((_unescaped(n).encode("latin-1"), _unescaped(v).encode("latin-1")) for n, _, v in pairs)


@dataclass(frozen=True, slots=True)
class Corpus:
    allowed: tuple[Allowed, ...]
    tricks: tuple[Trick, ...]


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came to the server; of HTTP/2 with `:authority` as a header `host`."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()

    def values(self, name: str) -> list[str]:
        return [value for sent, value in self.headers if sent.lower() == name.lower()]


def read(text: str) -> Corpus:
    """The corpus in a text. Raises CorpusError."""
    allowed: list[Allowed] = []
    tricks: list[Trick] = []
    section = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            continue
        columns = [column.strip(" ") for column in line.split(" | ")]
        if len(columns) != 4 or not section:
            raise CorpusError(f"line {number}: four columns with ' | ' between them, in a section")
        if section == POLICY:
            allowed.append(_allowed(columns))
        else:
            tricks.append(_trick(number, section, columns))
    return Corpus(tuple(allowed), tuple(tricks))


def corpus() -> Corpus:
    """The corpus of this package."""
    return read(FILE.read_text())


def _allowed(columns: list[str]) -> Allowed:
    method, path, host, header = columns
    name, colon, value = header.partition(": ")
    return Allowed(method, path, host, (name, value) if colon else None)


def _trick(number: int, section: str, columns: list[str]) -> Trick:
    wire, answers, sent, why = columns
    if wire not in set(Wire) or not answers or not why:
        raise CorpusError(f"line {number}: {wire!r} is none of {', '.join(Wire)}, or a column is empty")
    for placeholder, text in _PLACEHOLDERS.items():
        sent = sent.replace(placeholder, text)
    if wire != Wire.HTTP2:  # of which each field is unescaped by itself: an escaped space separates nothing
        sent = _unescaped(sent)
    return Trick(number, section, Wire(wire), tuple(answers.split()), sent, why)


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)) if found[1] else _ESCAPES[found[2]], text)


# -- what a server may make of it --------------------------------------------------------------------------------------


def trespass(allowed: tuple[Allowed, ...], received: Received) -> str:
    """How a server may read this request as one that is not allowed; "" if no server would."""
    paths = readings(received.target)
    if len(paths) > READINGS_MAX:
        return f"{received.target!r} can be read in too many ways"
    hosts = set(_hosts(received))
    for path in sorted(paths):
        for host in sorted(hosts):
            if not any(_is_allowed(rule, received, path, host) for rule in allowed):
                return f"{received.method} {received.target!r} may be read as {path!r} on {host!r}"
    return "" if hosts else f"{received.target!r} names no host"


def _is_allowed(rule: Allowed, received: Received, path: str, host: str) -> bool:
    if received.method.upper() != rule.method or not re.fullmatch(rule.path, path, re.DOTALL):
        return False
    if not re.fullmatch(rule.host, host):
        return False
    return rule.header is None or _spellings(received, rule.header[0]) == {rule.header[1]}


def _spellings(received: Received, name: str) -> set[str]:
    """The values of a header, also by servers that take `_` for `-` (CGI)."""
    wanted = name.lower().replace("_", "-")
    return {value for sent, value in received.headers if sent.lower().replace("_", "-") == wanted}


def _hosts(received: Received) -> Iterator[str]:
    """Every host that the request may be taken to name: lists, users, trailing dots, case."""
    absolute = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)", received.target)
    for value in (*received.values("host"), *((absolute[1],) if absolute else ())):
        for host in value.split(","):
            yield host.strip().rpartition("@")[2].lower().rstrip(".")


def readings(target: str) -> set[str]:
    """Every path that some server might see in a target: all ways of decoding and cleaning, in any order."""
    path = re.sub(r"^[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*", "", target)
    found = {path.partition("?")[0] or "/"}
    todo = list(found)
    while todo and len(found) <= READINGS_MAX:
        path = todo.pop()
        for change in _CHANGES:
            changed = change(path)
            if changed not in found:
                found.add(changed)
                todo.append(changed)
    return {path for path in found if not _is_raw(path)}


def _is_raw(path: str) -> bool:
    """A step on the way: every server resolves dot segments and ends a path at a query, after it has decoded."""
    return path != _resolved(path)


def _decoded(path: str) -> str:
    def char(found: re.Match[str]) -> str:
        return chr(int(found[1] or found[2], 16))

    return re.sub(r"%(?:u([0-9A-Fa-f]{4})|([0-9A-Fa-f]{2}))", char, path)


def _utf8(path: str) -> str:
    """Decoded bytes as UTF-8, by a decoder that takes overlong forms."""

    def char(found: re.Match[str]) -> str:
        lead, *rest = (ord(byte) for byte in found[0])
        value = lead & (0x7F >> (len(rest) + 1))
        for byte in rest:
            value = value << 6 | byte & 0x3F
        return chr(value) if value < 0x110000 else "?"

    tail = "[\x80-\xbf]"
    return re.sub(f"[\xc0-\xdf]{tail}|[\xe0-\xef]{tail}{{2}}|[\xf0-\xf7]{tail}{{3}}", char, path)


def _resolved(path: str) -> str:
    """Dot segments removed (RFC 3986 5.2.4)."""
    kept: list[str] = []
    segments = path.split("/")
    for place, segment in enumerate(segments[1:], 1):
        is_last = place == len(segments) - 1
        if segment == ".." and kept:
            kept.pop()
        if segment not in (".", ".."):
            kept.append(segment)
        elif is_last:
            kept.append("")
    return "/" + "/".join(kept)


def _of_segments(change: Callable[[str], str]) -> Callable[[str], str]:
    return lambda path: "/".join(change(segment) for segment in path.split("/"))


def _windows_name(segment: str) -> str:
    """Without trailing dots and spaces; several dots alone climb."""
    bare = segment.replace(" ", "")
    if bare and not bare.strip("."):
        return ".." if len(bare) > 1 else "."
    return segment.rstrip(". ")


_CHANGES: Final[tuple[Callable[[str], str], ...]] = (
    _decoded,
    _utf8,
    _resolved,
    lambda path: path.replace("\\", "/"),
    lambda path: re.sub("/{2,}", "/", path),
    lambda path: re.split("[\x00\r\n#?]", path, maxsplit=1)[0] or "/",
    lambda path: unicodedata.normalize("NFKC", path),
    _of_segments(lambda segment: segment.partition(";")[0]),
    _of_segments(_windows_name),
    _of_segments(str.strip),
)

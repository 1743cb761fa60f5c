"""A request as rules see it, and the path that Envoy makes of the one that a client wrote. Pure.

Envoy judges, and forwards, the normalised path (xds/hcm.py asks for it, docs/xds.md says what becomes of what). This is
the same in Python, for whoever answers offline; the differential tests hold it against the real Envoy.
"""

from __future__ import annotations

import re
import string
from dataclasses import dataclass, replace
from typing import Final

BAD_REQUEST: Final = 400
REDIRECT: Final = 307

_DOT_SEGMENT_WITH_PARAMETERS: Final = re.compile(r"(?<![^/])(\.\.?);[^/]*")
_ESCAPED_SLASH: Final = re.compile("%(2f|5c)", re.IGNORECASE)
_DOT: Final = re.compile("%2e", re.IGNORECASE)
_NUL: Final = "%00"
_HEX: Final = frozenset(string.hexdigits)
# Characters that are never written as %XX, and those that always are (url::CanonicalizePath, which Envoy uses).
_UNRESERVED: Final = frozenset(string.ascii_letters + string.digits + "-._~")
_TO_ESCAPE: Final = {char: f"%{ord(char):02X}" for char in '"<>^`{|}'}
_IMPOSSIBLE: Final = re.compile(r"[^\x21-\x7e]|#")  # Envoy's codecs and its connection manager refuse these


@dataclass(frozen=True, slots=True)
class Request:
    """`path` with its query string, `host` as in `:authority`; headers in the order sent.

    Not `is_whole`: it may have had other headers too, as of a request that is known from a log.
    """

    method: str = "GET"
    path: str = "/"
    host: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    is_whole: bool = True

    def header(self, name: str) -> str | None:
        """The value of all headers of that name, joined by commas as Envoy does; None if there is none."""
        wanted = name.lower()
        if wanted == "host":  # one and the same to Envoy
            return self.host or None
        values = [value.strip(" \t") for sent, value in self.headers if sent.lower() == wanted]
        return ",".join(values) if values else None


@dataclass(frozen=True, slots=True)
class Arrival:
    """What becomes of a request before any rule sees it. `status` 0: `request` is judged, its path normalised.

    Otherwise Envoy answers by itself with this status; the request that a redirect leads to is `request`.
    """

    request: Request
    status: int = 0


def arrive(request: Request) -> Arrival:
    """The request as it is judged (HTTP/1; in HTTP/2 bytes that are not ASCII pass too)."""
    if not request.path.startswith("/") or _IMPOSSIBLE.search(request.path):
        return Arrival(request, BAD_REQUEST)
    path, mark, query = request.path.partition("?")
    unescaped = _ESCAPED_SLASH.sub(_slash, path)
    plain = _DOT_SEGMENT_WITH_PARAMETERS.sub(r"\1", unescaped)
    if _NUL in plain:
        return Arrival(request, BAD_REQUEST)
    judged = replace(request, path=f"{_merged(_canonical(plain))}{mark}{query}")
    return Arrival(judged, REDIRECT if unescaped != path else 0)


def _slash(found: re.Match[str]) -> str:
    return "/" if found[1] in ("2f", "2F") else "\\"


def _canonical(path: str) -> str:
    """Dot segments resolved, backslashes turned, what needs no escape unescaped and what needs one escaped."""
    kept: list[str] = []
    segments = path[1:].replace("\\", "/").split("/")
    for i, segment in enumerate(segments):
        plain = _DOT.sub(".", segment)
        if plain == "..":
            del kept[-1:]
        elif plain != ".":
            kept.append(_characters(segment))
        if plain in (".", "..") and i == len(segments) - 1:
            kept.append("")
    return "/" + "/".join(kept)


def _characters(segment: str) -> str:
    """One segment. A stray % that an unescaped character would complete to an escape is escaped itself: %2%41."""
    out: list[str] = []
    stray, at = -3, 0
    while at < len(segment):
        char, at = segment[at], at + 1
        if char != "%":
            out.append(_TO_ESCAPE.get(char, char))
            continue
        digits = segment[at : at + 2]
        if len(digits) < 2 or not _HEX.issuperset(digits):
            stray = len(out)
            out.append("%")
            continue
        at += 2
        char = chr(int(digits, 16))
        if char not in _UNRESERVED:
            out += ("%", *digits)
            continue
        out.append(char)
        following = (*out[stray + 1 :], *segment[at : at + 1])[:2]
        if 0 <= stray >= len(out) - 3 and len(following) == 2 and _HEX.issuperset(following):
            out[stray] = "%25"
    return "".join(out)


def _merged(path: str) -> str:
    """Repeated slashes are one; a path of nothing else becomes two, as Envoy has it."""
    if "//" not in path:
        return path
    middle = "/".join(part for part in path.split("/") if part)
    return f"/{middle}/" if path.endswith("/") else f"/{middle}"

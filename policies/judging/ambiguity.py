"""Paths and hosts that two servers may read differently: refused where rules are about them, never guessed. Pure.

A proxy judges a text; the server behind it decodes, strips and merges that text in its own way. What Envoy normalises
(dot segments, doubled slashes, backslashes, needless escapes) is judged and forwarded in one and the same form. What it
leaves and some servers do not is told here, as regular expressions that RE2 and Python read alike: xds.guards compiles
them into the slot, and whoever explains a verdict offline asks `ambiguous_path`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# Any number of times encoded: %2e, %252e, %25252e.
# The wide ones are all that Unicode's compatibility forms (NFKC) fold to dots, a slash, a backslash or a semicolon.
_WIDE_DOT: Final = r"%[Ee]2%80%[Aa][4-6]|%[Ee][Ff]%(?:[Bb]8%(?:99|[Bb]0)|[Bb]9%92|[Bb][Cc]%8[Ee])"
_WIDE_SLASH: Final = r"%[Ee][Ff]%(?:[Bb][Cc]%(?:8[Ff]|[Bb][Cc])|[Bb]9%[Aa]8)"
_WIDE_SEMICOLON: Final = r"%[Cc][Dd]%[Bb][Ee]|%[Ee][Ff]%(?:[Bb][89]%94|[Bb][Cc]%9[Bb])"
_DOT: Final = rf"(?:\.|%(?:25)*2[Ee]|{_WIDE_DOT})"
_SPACE: Final = r"%(?:25)*20"
_SLASH: Final = rf"(?:/|%(?:25)*(?:2[Ff]|5[Cc])|{_WIDE_SLASH})"
_PARAMETERS: Final = rf"(?:(?:;|%(?:25)*3[Bb]|{_WIDE_SEMICOLON})[^/?]*)?"

# What is wrong -> how it looks, in the part of a path that is before the query. The path is the one that Envoy has
# normalised, so a segment that is a dot segment by now was hidden from it.
FAULTS: Final[Mapping[str, str]] = {
    "an escape that is none": r"%(?:[^0-9A-Fa-f]|[0-9A-Fa-f](?:[^0-9A-Fa-f]|$)|$)",
    "a control character": r"%(?:[01][0-9A-Fa-f]|7[Ff])",
    "an overlong encoding": r"%[Cc][01]%[89ABab]|%[Ee]0%[89]|%[Ff](?:0|8|[Cc])%8",
    "a needless escape": r"%(?:3[0-9]|[46][1-9A-Fa-f]|[57][0-9Aa]|2[DdEeFf]|5[CcFf]|7[Ee])",
    "a hidden dot segment": rf"{_SLASH}(?:{_SPACE})*{_DOT}(?:{_DOT}|{_SPACE})*{_PARAMETERS}(?:{_SLASH}|\?|$)",
    "a hidden empty segment": rf"/(?:(?:{_SPACE})+{_PARAMETERS}|;[^/?]*)/",
}
AMBIGUOUS: Final = "|".join(FAULTS.values())  # to be searched in a path

# An authority that names one host, and a port: no list (two Host headers become one), no user.
ONE_HOST: Final = r"[^,@]*"

_FAULTS: Final = {fault: re.compile(pattern) for fault, pattern in FAULTS.items()}
_ONE_HOST: Final = re.compile(ONE_HOST)


def ambiguous_path(path: str) -> str:
    """Why a normalised `:path` is refused by slots that have rules about paths; "" if it is not."""
    before_query = path.partition("?")[0]
    return next((fault for fault, pattern in _FAULTS.items() if pattern.search(before_query)), "")


def ambiguous_host(authority: str) -> bool:
    """Whether slots that have regular expressions about hosts refuse it."""
    return not _ONE_HOST.fullmatch(authority)

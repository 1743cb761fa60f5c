"""What a schema cannot say: ports, regular expressions, headers, label syntax. Pure; imports re2, Envoy's engine.

Each function returns what is wrong in words, or raises Refused, or returns the value. Where Cilium accepts what cannot
mean what it says (facts 1.4), it is refused here, and the fault says that Cilium would not.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

import re2

from policies.errors import Reason
from policies.ir import HeaderMatch
from policies.types import PORT_MAX

REGEX_MAX: Final = 4096  # characters; an HTTP request line is rarely longer
REGEX_DEPTH_MAX: Final = 100  # groups inside groups; Go refuses 1,000, and both parsers recurse
REGEX_PROGRAM_MAX: Final = 20_000  # RE2 instructions; `[^/]*` takes 12, `\pL` 1,200
_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PORT_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_PORT_NAME: Final = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*", re.IGNORECASE)
_OCTAL: Final = re.compile(r"0(?:_?[0-7])+")
_GO_NUMBER: Final = re.compile(r"(?:0[xX])?[0-9a-fA-F_]{1,64}|0[bBoO][0-7_]{1,64}")
_GO_DEPTH: Final = 1000
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")  # in no method, path or host that gets through Envoy
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 token
_HEADER_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]+")  # RFC 9110 field-value, any encoding
# Patterns of this form are good, as RE2 would say of each (a property test holds them against it): most need no engine.
_CHAR: Final = r"""[A-Za-z0-9/_\-.~%&=@:;,!"'<> ]|\\[.dws/+*?()|\[\]{}^$-]|\[\^?(?:a-z|A-Z|0-9|[A-Za-z0-9_./])+\]"""
_GROUP: Final = rf"\((?:(?:{_CHAR})[*+?]?|\|)*\)"
_GOOD_REGEX: Final = re.compile(rf"(?:(?:{_CHAR}|{_GROUP})[*+?]?)*")
# RE2 reads these, Go does not: any byte; names of groups beyond ASCII; scripts of Unicode 16 (Go has 15).
_RE2_ONLY: Final = re.compile(
    r"(?<!\\)(?:\\\\)*(?:\\C|\(\?P?<\w*[^\x00-\x7f>]|\\[pP]\{\^?"
    r"(?:Garay|Gurung_Khema|Kirat_Rai|Ol_Onal|Sunuwar|Todhri|Tulu_Tigalari)\})"
)

_QUIET: Final = re2.Options()
_QUIET.log_errors = False
_QUIET.never_nl = False


class Refused(Exception):
    """A value that cannot stand. `reason` is a code of policies.errors; `by_cilium`: Cilium refuses it too."""

    def __init__(self, reason: str, message: str, by_cilium: bool = False) -> None:
        self.reason = reason
        self.message = message
        self.by_cilium = by_cilium
        super().__init__(message)


class Fault(NamedTuple):
    """What is wrong in words, and whether Go's regexp, which Cilium checks with, refuses it too."""

    message: str
    by_cilium: bool


@lru_cache(maxsize=65536)
def regex_fault(pattern: str) -> Fault | None:
    """Why Cilium's check (Go's regexp) or Envoy (RE2) would refuse this pattern; None if neither would."""
    if len(pattern) > REGEX_MAX:
        return Fault(f"longer than {REGEX_MAX} characters", False)
    if _GOOD_REGEX.fullmatch(pattern):
        return None
    if not _is_unicode(pattern) or "\x00" in pattern:
        return Fault("contains characters that no request can have", False)
    if pattern.count("(") > REGEX_DEPTH_MAX and (depth := _depth(pattern)) > REGEX_DEPTH_MAX:
        return Fault(f"groups nested deeper than {REGEX_DEPTH_MAX}", depth >= _GO_DEPTH)
    if found := _RE2_ONLY.search(pattern):
        return Fault(f"{found[0]} is not supported (Cilium's validator refuses it)", True)
    try:
        compiled = re2.compile(pattern, _QUIET)
    except re2.error as error:
        words = error.args[0] if error.args else b"refused by RE2"
        text = words.decode(errors="replace") if isinstance(words, bytes) else str(words)
        return Fault(text, "too large" not in text)
    if compiled.programsize > REGEX_PROGRAM_MAX:
        return Fault(f"compiles to {compiled.programsize} instructions, the most is {REGEX_PROGRAM_MAX}", False)
    if pattern.endswith("\n"):
        return Fault("ends with a newline, as what stands behind | or > in YAML does: no request matches it", False)
    if _CONTROL.search(pattern):
        return Fault("contains control characters, which no request can have", False)
    return None


def _depth(pattern: str) -> int:
    """How deep groups are nested, at most (escaped parentheses and those in classes count: an upper bound)."""
    depth = deepest = 0
    for char in pattern:
        depth += (char == "(") - (char == ")" and depth > 0)
        deepest = max(deepest, depth)
    return deepest


def port_value(written: str) -> int | str:
    """The number or the name (in lower case) of a port as it is written.

    Raises Refused, also for what two readers read differently (Cilium takes 010 for 8, facts 1.4).
    """
    if _PORT_NUMBER.fullmatch(written):
        if int(written) > PORT_MAX:
            raise Refused(Reason.BAD_PORT, f'"{written}" is not within 0..{PORT_MAX}', True)
        return int(written)
    if not written:
        raise Refused(Reason.MISSING, 'port must be specified; "0" is every port', True)
    if _PORT_NAME.fullmatch(written):
        return written.lower()
    number = _go_number(written)
    if number is None or number > PORT_MAX:
        raise Refused(Reason.BAD_PORT, f'"{written}" is neither a number within 0..{PORT_MAX} nor a port name', True)
    raise Refused(Reason.BAD_PORT, f'"{written}" may be read as octal or hexadecimal: Cilium takes it for {number}')


def port_name_fault(name: str) -> str:
    """Why this is no name of a port in Kubernetes; "" if it is one."""
    if _PORT_NAME.fullmatch(name) and name == name.lower():
        return ""
    return f'"{name}" is no port name (at most 15 of a-z, 0-9, "-", with a letter); numbers go without quotes'


def _go_number(written: str) -> int | None:
    """What Go's ParseUint(s, 0, 64) makes of it: prefixes 0x, 0o, 0b, 0, and underscores between digits."""
    if _OCTAL.fullmatch(written):
        return int(written, 8)
    try:
        return int(written, 0) if _GO_NUMBER.fullmatch(written) else None
    except ValueError:
        return None


def header_match(written: str) -> HeaderMatch:
    """`Name value` or `Name` (presence): split at the first space, less one colon. Raises Refused if none can match."""
    name, space, value = written.partition(" ")
    if space:
        name = name.removesuffix(":")
    if fault := header_name_fault(name):
        hint = ": write a space before the value" if ":" in name[1:] and not space else ""
        raise Refused(Reason.BAD_HEADER, fault + hint)
    if not space:
        return HeaderMatch(name.lower())
    if header_value_fault(value):
        raise Refused(Reason.BAD_HEADER, f'no request can have the value "{value}" in header {name}')
    return HeaderMatch(name.lower(), value)


def header_name_fault(name: str) -> str:
    """Why no request can have a header of this name; "" if one can."""
    if name.startswith(":"):
        return f'"{name}" is no header: use method, path or host'
    return "" if _HEADER_NAME.fullmatch(name) else f'"{name}" can be no header name'


def header_value_fault(value: str) -> str:
    """Why no request can have this value in a header; "" if one can."""
    if value == value.strip(" \t") and _HEADER_VALUE.fullmatch(value) and _is_unicode(value):
        return ""
    return "it has blanks at an end, or characters that no request can have"


@lru_cache(maxsize=65536)
def label_key_fault(key: str) -> str:
    """Why this is no label key (Kubernetes' IsQualifiedName); "" if it is one."""
    prefix, slash, name = key.rpartition("/")
    if not _LABEL_NAME.fullmatch(name):
        return f'"{name}" is no label name (at most 63 of letters, digits, "-", "_", ".")'
    if slash and (len(prefix) > 253 or not _LABEL_PREFIX.fullmatch(prefix)):
        return f'"{prefix}" is no DNS name'
    return ""


@lru_cache(maxsize=65536)
def label_value_fault(value: str) -> str:
    """Why this is no label value; "" if it is one."""
    if _LABEL_VALUE.fullmatch(value):
        return ""
    return f'"{value}" is no label value (at most 63 of letters, digits, "-", "_", ".")'


def object_name_fault(name: str) -> str:
    """Why this is no name of an object; "" if it is one."""
    return "" if _OBJECT_NAME.fullmatch(name) else f'"{name}" is no object name (lower-case letters, digits, "-", ".")'


def group_name_fault(name: str) -> str:
    """Why this is no name of a CiliumCIDRGroup; "" if it is one."""
    if len(name) <= 253 and _LABEL_PREFIX.fullmatch(name):
        return ""
    return f'"{name}" is no object name (lower-case letters, digits, "-", ".")'


def _is_unicode(value: str) -> bool:
    """Lone surrogates come from JSON escapes and go into no protocol buffer."""
    return not any("\ud800" <= char <= "\udfff" for char in value)

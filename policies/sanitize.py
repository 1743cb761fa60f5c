"""What a schema cannot say: ports, regular expressions, headers, label syntax. Pure; imports re2, Envoy's engine.

Each function returns what is wrong in words, or raises nothing and returns the value. Where Cilium accepts an object
that cannot mean what it says (facts 1.4), it is refused here.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import re2

from policies.errors import Reason
from policies.ir import HeaderMatch
from policies.types import PORT_MAX

REGEX_MAX: Final = 4096  # characters; an HTTP request line is rarely longer
_LABEL_NAME: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_PREFIX: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.IGNORECASE)
_LABEL_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_OBJECT_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_PORT_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,4}")
_PORT_NAME: Final = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*", re.IGNORECASE)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 token
_HEADER_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]+")  # RFC 9110 field-value, any encoding
# Patterns of this form are good, as RE2 would say of each (a property test holds them against it): most need no engine.
_CHAR: Final = r"""[A-Za-z0-9/_\-.~%&=@:;,!"'<> ]|\\[.dws/+*?()|\[\]{}^$-]|\[\^?(?:a-z|A-Z|0-9|[A-Za-z0-9_./])+\]"""
_GROUP: Final = rf"\((?:(?:{_CHAR})[*+?]?|\|)*\)"
_GOOD_REGEX: Final = re.compile(rf"(?:(?:{_CHAR}|{_GROUP})[*+?]?)*")
_ANY_BYTE: Final = re.compile(r"(?<!\\)(?:\\\\)*\\C")

_QUIET: Final = re2.Options()
_QUIET.log_errors = False
_QUIET.never_nl = False


class Refused(Exception):
    """A value that cannot stand. `reason` is a code of policies.errors."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        self.message = message
        super().__init__(message)


@lru_cache(maxsize=65536)
def regex_fault(pattern: str) -> str:
    """Why Cilium or Envoy would refuse this RE2 pattern; "" if neither would."""
    if len(pattern) > REGEX_MAX:
        return f"longer than {REGEX_MAX} characters"
    if _GOOD_REGEX.fullmatch(pattern):
        return ""
    if not _is_unicode(pattern) or "\x00" in pattern:
        return "contains characters that no request can have"
    if _ANY_BYTE.search(pattern):
        return r"\C is not supported (Cilium's validator refuses it)"
    try:
        re2.compile(pattern, _QUIET)
    except re2.error as error:
        words = error.args[0] if error.args else b"refused by RE2"
        return words.decode(errors="replace") if isinstance(words, bytes) else str(words)
    return ""


def port_number(written: str) -> int:
    """The number of a port as it is written; raises Refused for names and for what two readers read differently."""
    if _PORT_NUMBER.fullmatch(written):
        if int(written) > PORT_MAX:
            raise Refused(Reason.BAD_PORT, f'"{written}" is not within 0..{PORT_MAX}')
        return int(written)
    if not written:
        raise Refused(Reason.MISSING, 'port must be specified; "0" is every port')
    if re.fullmatch(r"0[0-9_]+", written):
        raise Refused(Reason.BAD_PORT, f'"{written}" may be read as octal: write it without the leading zero')
    if _PORT_NAME.fullmatch(written):
        raise Refused(Reason.NOT_SUPPORTED_YET, f'"{written}" is a port name: write its number')
    raise Refused(Reason.BAD_PORT, f'"{written}" is neither a number within 0..{PORT_MAX} nor a port name')


def header_match(written: str) -> HeaderMatch:
    """`Name value` or `Name` (presence): split at the first space, less one colon. Raises Refused if none can match."""
    name, space, value = written.partition(" ")
    if space:
        name = name.removesuffix(":")
    if name.startswith(":"):
        raise Refused(Reason.BAD_HEADER, f'"{name}" is no header: use method, path or host')
    if not _HEADER_NAME.fullmatch(name):
        hint = ": write a space before the value" if ":" in name and not space else ""
        raise Refused(Reason.BAD_HEADER, f'"{name}" can be no header name{hint}')
    if not space:
        return HeaderMatch(name.lower())
    if value != value.strip(" \t") or not _HEADER_VALUE.fullmatch(value) or not _is_unicode(value):
        raise Refused(Reason.BAD_HEADER, f'no request can have the value "{value}" in header {name}')
    return HeaderMatch(name.lower(), value)


def label_key_fault(key: str) -> str:
    """Why this key (without its source) is no label key; "" if it is one."""
    prefix, slash, name = key.rpartition("/")
    if not _LABEL_NAME.fullmatch(name):
        return f'"{name}" is no label name (at most 63 of letters, digits, "-", "_", ".")'
    if slash and (len(prefix) > 253 or not _LABEL_PREFIX.fullmatch(prefix)):
        return f'"{prefix}" is no DNS name'
    return ""


def label_value_fault(value: str) -> str:
    """Why this is no label value; "" if it is one."""
    if _LABEL_VALUE.fullmatch(value):
        return ""
    return f'"{value}" is no label value (at most 63 of letters, digits, "-", "_", ".")'


def object_name_fault(name: str) -> str:
    """Why this is no name of an object; "" if it is one."""
    return "" if _OBJECT_NAME.fullmatch(name) else f'"{name}" is no object name (lower-case letters, digits, "-", ".")'


def _is_unicode(value: str) -> bool:
    """Lone surrogates come from JSON escapes and go into no protocol buffer."""
    return not any("\ud800" <= char <= "\udfff" for char in value)

"""Patterns and addresses in filters: checked once, with an error that names the bad value. Pure."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

import re2

from flows.gotext import quoted

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

PROGRAM_MAX = 20_000  # instructions of all regular expressions of one field
REGEX_BYTES_MAX = 1 << 20  # of memory that one regular expression may take
SHOWN = 100  # characters of a bad value
KEPT, KEPT_LENGTH = 1024, 256  # texts that are remembered, and their characters
DNS_NAME = r"(?:[-0-9_a-z]+(?:\.[-0-9_a-z]+)*)"
PREFIX_LENGTH = re.compile(r"(?:0|[1-9][0-9]*)\Z")
URL_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def address(text: str) -> str:
    """The text, if it is an IP address; it is compared as text, so only the canonical form finds anything."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"invalid IP address {quoted(text)} in filter") from None
    return text


def network(text: str) -> Network:
    """A prefix like `10.0.0.0/8`; bits after it are allowed. Raises ValueError."""
    try:
        if "%" in text or not PREFIX_LENGTH.match(text.rpartition("/")[2]):  # a zone, a mask of dots
            raise ValueError(text)
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"invalid IP prefix {quoted(text)} in filter") from None


def within(ip: str, networks: Iterable[Network]) -> bool:
    """Whether an address lies in one of the networks; text that is no address lies in none."""
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        return False
    return any(address in network for network in networks)


def name_pattern(text: str) -> str:
    """A regular expression for DNS names like `*.example.org`, to be matched in full. Raises ValueError."""
    name = text.strip().removesuffix(".").lower()
    if not name or name.endswith("."):
        raise ValueError("multiple trailing dots in pattern" if name else "empty pattern")
    if odd := re.search(r"[^-_.0-9a-z*]", name):
        raise ValueError(f"{odd[0]!r}: invalid rune in pattern")
    return re.escape(name).replace(r"\*", "[-.0-9a-z]*")


def node_pattern(text: str) -> str:
    """A regular expression for `cluster/node`, from `[cluster/]node` with patterns. Raises ValueError."""
    cluster, _, node = text.rpartition("/")
    if not text:
        raise ValueError("empty pattern")
    if "/" in cluster:
        raise ValueError("too many slashes in pattern")
    return f"{name_pattern(cluster) if cluster else DNS_NAME}/{name_pattern(node) if node else DNS_NAME}"


def regexes(values: Iterable[str]) -> list[Any]:
    """Compiled by RE2, whose time is linear: who asks must not be able to stop everybody else. Raises ValueError."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = REGEX_BYTES_MAX
    compiled = []
    size = 0
    for value in values:
        try:
            compiled.append(re2.compile(value, options))
        except re2.error as error:
            reason = error.args[0] if error.args else error
            text = reason.decode(errors="replace") if isinstance(reason, bytes) else str(reason)
            raise ValueError(f"{value[:SHOWN]!r}: {text}") from None
        size += compiled[-1].programsize
        if size > PROGRAM_MAX:
            raise ValueError(f"{value[:SHOWN]!r}: more than {PROGRAM_MAX} instructions")
    return compiled


def remembered(judge: Callable[[str], T]) -> Callable[[str], T]:
    """The same function, quick about short texts that it has seen before."""
    recall = lru_cache(KEPT)(judge)
    return lambda text: recall(text) if len(text) <= KEPT_LENGTH else judge(text)


def path_of(url: str) -> str | None:
    """The decoded path of an absolute url or path, without the query; None if it is not one (as Go's parser says)."""
    if not url or any(char < " " or char == "\x7f" for char in url):
        return None
    scheme = URL_SCHEME.match(url)
    rest = (url[scheme.end() :] if scheme else url).partition("?")[0]
    if not rest.startswith("/"):
        return "" if scheme else None
    if scheme and rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        if " " in authority:
            return None
        rest = slash + path
    if BAD_ESCAPE.search(rest):
        return None
    return unquote_to_bytes(rest).decode(errors="replace")

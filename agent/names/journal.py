"""What of the learned names survives a restart: lines, each with its checksum. Pure; journal_file is the shell.

    <crc32 of the rest, 8 hexadecimal digits> ["+", endpoint, name, [address, ...], expires, alive]
                                              ["-", endpoint, name, [address, ...]]

A journal is a snapshot ("+" lines) with the changes since appended. A write that was torn leaves a line that does not
match its checksum: whatever comes from there on is not believed. Losing a name costs its next connection a question to
the server; believing a wrong one opens an address, so the doubt goes that way.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final
from zlib import crc32

from agent.names.book import Holding
from l7proxy.dns.names_on_wire import NAME_MAX

LINE_MAX: Final = 1 << 20  # bytes; a line has the addresses of one name
_TEXT_MAX: Final = NAME_MAX * 4  # an escaped byte is four characters
_ADDRESS_SIZES: Final = (4, 16)


@dataclass
class Replay:
    """What a journal says. `valid` bytes of it were readable; of the rest nothing is believed."""

    holdings: dict[tuple[int, str, bytes], Holding] = field(default_factory=dict)
    valid: int = 0
    lost: int = 0


def kept(holdings: Iterable[Holding]) -> bytes:
    """Lines that say: these are held."""
    lines = []
    ordered = sorted(holdings, key=lambda h: (h.endpoint, h.name, h.expires, h.alive, h.address))
    for (endpoint, name, expires, alive), group in groupby(
        ordered, key=lambda h: (h.endpoint, h.name, h.expires, h.alive)
    ):
        lines.append(_line(["+", endpoint, name, [h.address.hex() for h in group], expires, alive]))
    return b"".join(lines)


def dropped(holdings: Iterable[Holding]) -> bytes:
    """Lines that say: these are held no more."""
    lines = []
    ordered = sorted(holdings, key=lambda h: (h.endpoint, h.name, h.address))
    for (endpoint, name), group in groupby(ordered, key=lambda h: (h.endpoint, h.name)):
        lines.append(_line(["-", endpoint, name, [h.address.hex() for h in group]]))
    return b"".join(lines)


def replay(content: bytes) -> Replay:
    """Read a journal up to its first doubtful line. Never fails."""
    found = Replay()
    while found.valid < len(content):
        end = content.find(b"\n", found.valid, found.valid + LINE_MAX) + 1
        if not end or not _apply(content[found.valid : end - 1], found):
            break
        found.valid = end
    found.lost = len(content) - found.valid
    return found


def _line(entry: list[Any]) -> bytes:
    text = json.dumps(entry, separators=(",", ":")).encode()
    return b"%08x %s\n" % (crc32(text), text)


def _apply(line: bytes, found: Replay) -> bool:
    """Do what one line says; False where it is none of ours."""
    text = line[9:]
    if line[:9] != b"%08x " % crc32(text):
        return False
    try:
        sign, endpoint, name, addresses, *times = json.loads(text)
        if not isinstance(endpoint, int) or not isinstance(name, str) or len(name) > _TEXT_MAX:
            return False
        packed = [bytes.fromhex(address) for address in addresses]
        if any(len(address) not in _ADDRESS_SIZES for address in packed):
            return False
        if sign == "+":
            expires, alive = map(float, times)
            for address in packed:
                found.holdings[endpoint, name, address] = Holding(endpoint, name, address, expires, alive)
            return True
        for address in packed:
            found.holdings.pop((endpoint, name, address), None)
        return sign == "-" and not times
    except (ValueError, TypeError, RecursionError):
        return False

"""Which addresses have connections: a walk through connection tracking, in batches. Touches the kernel.

A full map takes a fifth of a second (docs/architecture.md has figures): for a thread of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from time import monotonic_ns
from typing import Final

from bpf import sys
from bpf.constants import Dir
from bpf.layout import CT_KEY, CT_VALUE, MapSpec

BATCH: Final = 256  # entries between which other threads run: 0.2 ms of work
_VALUE: Final = struct.Struct("=QB15x")  # expires, direction
_FORM: Final = "=16x16sI5xB2x"  # remote, ifindex, family


def connected(fd: int, spec: MapSpec, addresses: Collection[bytes]) -> dict[bytes, set[int]]:
    """Of these packed addresses (4 or 16 bytes), those to which pods of this node have connections: address -> ids of
    the endpoints (interface indices). An entry lives until its timeout (a minute for UDP, 10 s after a TCP connection
    has ended). What is open all the while is found; what opens or ends meanwhile may be or not."""
    wanted = {address.ljust(16, b"\0") for address in addresses}
    whole = frozenset(addresses)
    found: dict[bytes, set[int]] = {}
    now = monotonic_ns()
    for keys, values in sys.map_batches(fd, spec, BATCH) if wanted else ():
        for number, (remote, ifindex, family) in enumerate(struct.iter_unpack(_FORM, keys)):
            if remote not in wanted:
                continue
            expires, direction = _VALUE.unpack_from(values, number * CT_VALUE.size)
            address = remote[:4] if family == 4 else remote
            if expires > now and direction == Dir.EGRESS and address in whole:
                found.setdefault(address, set()).add(ifindex)
    return found


assert struct.calcsize(_FORM) == CT_KEY.size
assert _VALUE.size == CT_VALUE.size

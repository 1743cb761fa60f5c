"""What a proxy of ours may do beside what everybody may: bind transparent sockets, mark packets, send raw ones. Linux.

A process started by root gives up the rest for good, before it reads anything that others sent.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Final

# <linux/capability.h>, <linux/prctl.h>
CAP_NET_ADMIN: Final = 12
CAP_NET_RAW: Final = 13
_VERSION_3: Final = 0x20080522
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_LAST: Final = Path("/proc/sys/kernel/cap_last_cap")


def keep_only(capabilities: Collection[int]) -> None:
    """Give up all others, also for programs that this one starts. OSError where the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    for other in range(int(_LAST.read_text()) + 1):
        if other not in capabilities:
            libc.prctl(_PR_CAPBSET_DROP, other, 0, 0, 0)  # who may not drop it from the set could not use it either
    _checked(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    held = sum(1 << number for number in capabilities) & _permitted()
    low, high = held & 0xFFFFFFFF, held >> 32
    header = struct.pack("=Ii", _VERSION_3, 0)
    # effective, permitted, inheritable: of the lower 32, then of the others
    _checked(libc.capset(header, struct.pack("=6I", low, low, 0, high, high, 0)))


def _permitted() -> int:
    """Those that this process has: what it has not, it cannot keep."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("CapPrm:")).split()[1], 16)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

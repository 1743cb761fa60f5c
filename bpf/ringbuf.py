"""The consumer side of the kernel's event ring: two memory maps and no copy but the events themselves.

For the agent's event loop: `add_reader(ring.fileno(), ...)`, then `read(max)`. The descriptor stays readable while
anything is left, so a bounded read loses nothing.
"""

from __future__ import annotations

import mmap
import os
import struct
import time

from bpf.event import Event, LayoutError, unpack_event

BUSY, DISCARD = 1 << 31, 1 << 30  # include/uapi/linux/bpf.h: BPF_RINGBUF_BUSY_BIT, BPF_RINGBUF_DISCARD_BIT
RECORD_HEADER = 8
PAGE = mmap.PAGESIZE


class Ring:
    """Reads the ring with descriptor `fd` of `size` bytes (a power of two). There must be one reader only."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = os.dup(fd)
        self._mask = size - 1
        # Layout of the kernel: consumer position | producer position (read-only) | the data, mapped twice in a row.
        self._consumer = mmap.mmap(self._fd, PAGE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._producer = mmap.mmap(self._fd, PAGE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=PAGE)
        self.malformed = 0  # records of another layout: the programs are newer or older than this process

    def fileno(self) -> int:
        return self._fd

    def read(self, limit: int = 1024) -> list[Event]:
        """At most `limit` events in order; their time is real time in nanoseconds since the epoch."""
        offset = time.time_ns() - time.monotonic_ns()
        at: int = struct.unpack_from("=Q", self._consumer, 0)[0]
        end: int = struct.unpack_from("=Q", self._producer, 0)[0]
        events: list[Event] = []
        while at < end and len(events) < limit:
            start = PAGE + (at & self._mask)
            (header,) = struct.unpack_from("=I", self._producer, start)
            if header & BUSY:
                break
            length = header & ~(BUSY | DISCARD)
            if not header & DISCARD:
                body = self._producer[start + RECORD_HEADER : start + RECORD_HEADER + length]
                try:
                    events.append(unpack_event(body, offset))
                except LayoutError:
                    self.malformed += 1
            at += (length + RECORD_HEADER + 7) & ~7
        struct.pack_into("=Q", self._consumer, 0, at)
        return events

    def close(self) -> None:
        self._consumer.close()
        self._producer.close()
        os.close(self._fd)

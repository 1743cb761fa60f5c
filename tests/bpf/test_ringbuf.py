"""The ring's consumer against a file laid out like the kernel's ring."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest

from bpf.layout import EVENT
from bpf.ringbuf import BUSY, DISCARD, PAGE, RECORD_HEADER, Ring
from tests.bpf.test_layout import EVENT_BYTES

SIZE = PAGE
STEP = RECORD_HEADER + EVENT.size


class FakeRing:
    """Consumer page, producer page, and the data twice, as mapped twice by the kernel."""

    def __init__(self, start: int = 0) -> None:
        self.fd = os.memfd_create("ring")
        os.ftruncate(self.fd, 2 * PAGE + 2 * SIZE)
        self.head = start
        os.pwrite(self.fd, struct.pack("=Q", start), 0)
        self.publish()

    def publish(self) -> None:
        os.pwrite(self.fd, struct.pack("=Q", self.head), PAGE)

    def put(self, body: bytes, flags: int = 0) -> int:
        at = self.head
        record = struct.pack("=II", len(body) | flags, 0) + body
        for number, byte in enumerate(record):
            for copy in (0, SIZE):
                os.pwrite(self.fd, bytes([byte]), 2 * PAGE + (at + number) % SIZE + copy)
        self.head += (len(record) + 7) & ~7
        self.publish()
        return at

    @property
    def consumed(self) -> int:
        return int(struct.unpack("=Q", os.pread(self.fd, 8, 0))[0])


@pytest.fixture(params=[0, 3 * SIZE - 16], ids=["at the start", "across the end"])
def kernel(request: pytest.FixtureRequest) -> Iterator[FakeRing]:
    made = FakeRing(request.param)
    yield made
    os.close(made.fd)


def test_events_are_read_in_order_and_given_back(kernel: FakeRing) -> None:
    ring = Ring(kernel.fd, SIZE)
    assert ring.read() == []
    for port in (1, 2, 3):
        kernel.put(EVENT_BYTES[:64] + struct.pack("=H", port) + EVENT_BYTES[66:])
    assert [e.source_port for e in ring.read(2)] == [1, 2]
    assert kernel.consumed == kernel.head - STEP
    assert [e.source_port for e in ring.read()] == [3]
    assert kernel.consumed == kernel.head
    ring.close()


def test_a_record_being_written_is_waited_for(kernel: FakeRing) -> None:
    ring = Ring(kernel.fd, SIZE)
    at = kernel.put(EVENT_BYTES, BUSY)
    kernel.put(EVENT_BYTES)
    assert ring.read() == []
    for copy in (0, SIZE):
        os.pwrite(kernel.fd, struct.pack("=I", len(EVENT_BYTES)), 2 * PAGE + at % SIZE + copy)
    assert len(ring.read()) == 2
    ring.close()


def test_discarded_and_foreign_records_are_passed_over(kernel: FakeRing) -> None:
    ring = Ring(kernel.fd, SIZE)
    kernel.put(EVENT_BYTES, DISCARD)
    kernel.put(b"\xff" + EVENT_BYTES[1:])
    kernel.put(b"short")
    kernel.put(EVENT_BYTES)
    assert len(ring.read()) == 1
    assert ring.malformed == 2
    ring.close()

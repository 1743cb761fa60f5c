"""One connection's turn: whoever sends what is dear to judge is read by little, so that others do not wait."""

from __future__ import annotations

import socket
import time

from l7proxy.kafka.wires import BUFFER, LEAST, READS_PER_TURN, SLICE, Listener, Wire
from l7proxy.poller import Poller

PORTION = bytes(32 << 10)


class Judge:
    """Takes this long for what it is given, whatever its size."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.sizes: list[int] = []

    def received(self, view: memoryview) -> None:
        self.sizes.append(len(view))
        end = time.monotonic() + self.seconds
        while time.monotonic() < end:
            pass


def turn(poller: Poller, peer: socket.socket, judge: Judge) -> list[int]:
    """Sizes of what was read in one turn."""
    peer.sendall(PORTION)
    judge.sizes.clear()
    poller.turn()
    return list(judge.sizes)


def test_what_is_dear_is_read_by_little_and_what_is_cheap_by_much_again() -> None:
    peer, mine = socket.socketpair()
    with peer:
        mine.setblocking(False)
        poller, judge = Poller(), Judge()
        nothing = lambda: None  # noqa: E731
        heard = Listener(judge.received, nothing, nothing, nothing)
        wire = Wire(poller, mine, memoryview(bytearray(BUFFER)), heard, connected=True)
        judge.seconds = 2 * SLICE
        assert turn(poller, peer, judge) == [len(PORTION)]
        while judge.sizes[0] > LEAST:
            assert len(turn(poller, peer, judge)) == 1, "one read, then others have their turn"
        judge.seconds = 0.0
        while judge.sizes[-1] < len(PORTION):
            assert len(turn(poller, peer, judge)) <= READS_PER_TURN
        wire.close()
        poller.close()

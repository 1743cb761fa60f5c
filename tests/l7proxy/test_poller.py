"""The epoll set: who is called, and for whom an event was not meant."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator

import pytest

from l7proxy.poller import READ, Poller


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = Poller()
    yield made
    made.close()


def test_who_has_something_to_read_is_called_and_the_set_says_so(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    heard: list[int] = []
    with ours, theirs:
        poller.watch(ours.fileno(), READ, heard.append)
        poller.turn()
        assert heard == []
        theirs.send(b"x")
        assert select.select([poller.fileno()], [], [], 1.0)[0] == [poller.fileno()]
        poller.turn()
        assert heard == [READ]
        poller.forget(ours.fileno())
        poller.turn()
        assert heard == [READ]


def test_an_event_of_a_closed_socket_is_not_the_next_one_s(poller: Poller) -> None:
    """Two are due in one turn. The first closes the second, and a new socket gets its number."""
    heard: list[str] = []
    pairs = [socket.socketpair() for _ in range(2)]
    fresh = socket.socketpair()
    numbers = [ours.fileno() for ours, _ in pairs]

    def exchange(at: int) -> None:
        other = numbers[1 - at]
        heard.append("old")
        poller.forget(other)
        os.dup2(fresh[0].fileno(), other)  # closes what had the number
        poller.watch(other, READ, lambda _: heard.append("new"))

    for at, number in enumerate(numbers):
        poller.watch(number, READ, lambda _, at=at: exchange(at))
        pairs[at][1].send(b"x")
    poller.turn()
    assert heard == ["old"]
    fresh[1].send(b"x")
    pairs[0][0].close()
    poller.turn()
    assert "new" in heard
    for one in (*fresh, *(end for pair in pairs for end in pair)):
        one.close()

"""What comes in goes first; readers get what it leaves, and a little always."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.pace import LEAST, MOST, WINDOW, Pace


class Loop:
    """A loop in which building takes a share of each window."""

    def __init__(self) -> None:
        self.now = 100.0
        self.pace = Pace(lambda: self.now)

    def window(self, share: float) -> None:
        self.pace.built(share * WINDOW)
        self.now += WINDOW
        self.pace.rest(0.0)


def test_a_reader_does_not_rest_while_nothing_comes_in() -> None:
    loop = Loop()
    assert loop.pace.rest(1.0) == 0.0
    loop.window(0.0)
    assert loop.pace.rest(1.0) == 0.0


def test_readers_rest_the_more_the_more_comes_in() -> None:
    loop, rests = Loop(), []
    for share in (0.01, 0.1, 0.2, 0.4):
        loop.window(share)
        rests.append(loop.pace.rest(1.0))
    assert rests == sorted(rests)
    assert rests[0] < 0.2
    assert rests[-1] > 1.0


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=10), st.floats(0.0, 1.0))
def test_a_part_of_the_time_is_always_theirs(shares: list[float], worked: float) -> None:
    loop = Loop()
    for share in shares:
        loop.window(share)
    rest = loop.pace.rest(worked)
    assert 0.0 <= rest <= worked * (1 / LEAST - 1) + 1e-9


def test_a_flood_that_has_ended_is_forgotten() -> None:
    loop = Loop()
    loop.window(0.9)
    assert loop.pace.rest(1.0) == pytest.approx(1 / LEAST - 1)
    loop.window(0.0)
    assert loop.pace.rest(1.0) == 0.0
    assert MOST < 1.0

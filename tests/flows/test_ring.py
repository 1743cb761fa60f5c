"""A ring forgets the oldest, and nothing else."""

from __future__ import annotations

import pytest
from flow import flow_pb2
from hypothesis import given
from hypothesis import strategies as st

from flows.ring import Event, Ring


def event(number: int) -> Event:
    return Event(number * 10, flow_pb2.Flow(uuid=str(number)).SerializeToString())


@pytest.mark.parametrize("capacity", [0, 2, 4096, 65536, 131071, -1])
def test_capacities_that_hubble_would_refuse(capacity: int) -> None:
    with pytest.raises(ValueError, match="2\\^k-1"):
        Ring(capacity)


@pytest.mark.parametrize("capacity", [1, 3, 4095, 65535])
def test_capacities(capacity: int) -> None:
    assert Ring(capacity).capacity == capacity


def test_the_newest_is_readable_at_once() -> None:
    ring = Ring(3)
    ring.append(event(0))
    assert ring[0].flow().uuid == "0"


@given(st.sampled_from((1, 3, 7)), st.lists(st.one_of(st.none(), st.integers(1, 20)), max_size=40))
def test_against_a_list(capacity: int, steps: list[int | None]) -> None:
    """None appends, a number skips so many flows and then fills the ring."""
    ring, model, number = Ring(capacity), [], 0
    for step in steps:
        if step is not None:
            ring.skip(step)
            number += step
            model.clear()
        for _ in range(1 if step is None else capacity):
            ring.append(event(number))
            model.append(event(number))
            number += 1
        model = model[-capacity:]
        assert [ring[at] for at in range(ring.start, ring.end)] == model
        assert (ring.end, ring.flows_seen, len(ring)) == (number, number, len(model))
    for outside in (ring.start - 1, ring.end):
        with pytest.raises(IndexError):
            ring[outside]


@given(st.integers(0, 12), st.integers(-5, 130))
def test_first_since(count: int, time_ns: int) -> None:
    ring = Ring(7)
    for number in range(count):
        ring.append(event(number))
    expected = [at for at in range(ring.start, ring.end) if ring[at].time_ns >= time_ns]
    assert ring.first_since(time_ns) == (expected[0] if expected else ring.end)

"""A reader's place in the ring, piece by piece."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from flow import flow_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from observer import observer_pb2

from flows.reader import LOSS_INTERVAL, PIECE_BYTES, PIECE_EVENTS, Clock, Reader
from flows.reading import compile_request
from flows.ring import Event, Ring

STILL = Clock(lambda: 100.0, lambda: 5)
LOSS = Event(1, flow_pb2.LostEvent(num_events_lost=9).SerializeToString(), is_loss=True)


def event(number: int, size: int = 0) -> Event:
    """A flow that is told from others by its proxy port."""
    flow = flow_pb2.Flow(proxy_port=number, verdict=1 + number % 2, Summary="s" * size)
    return Event(number, flow.SerializeToString())


def ring_of(*events: Event, capacity: int = 1023) -> Ring:
    made = Ring(capacity)
    for one in events:
        made.append(one)
    return made


def reader(ring: Ring, clock: Clock = STILL, **request: Any) -> Reader:
    return Reader(ring, compile_request(observer_pb2.GetFlowsRequest(**request)), "n1", clock)


def ports(batch: list[bytes]) -> list[int]:
    """The flows of a piece by their numbers; a loss by its negative count."""
    sent = [observer_pb2.GetFlowsResponse.FromString(one) for one in batch]
    return [one.flow.proxy_port or -one.lost_events.num_events_lost for one in sent]


def everything(found: Reader) -> list[int]:
    seen = []
    while not found.is_done:
        seen += ports(found.piece(1.0))
    return seen


def test_a_piece_is_of_bounded_work() -> None:
    ring = ring_of(*(event(number + 1) for number in range(1000)))
    found = reader(ring)
    assert len(found.piece(1.0)) == PIECE_EVENTS
    assert everything(found) == list(range(PIECE_EVENTS + 1, 1001))


def test_a_piece_is_of_bounded_size() -> None:
    ring = ring_of(*(event(number + 1, size=PIECE_BYTES // 4) for number in range(20)))
    found = reader(ring)
    assert len(found.piece(1.0)) == 4
    assert len(everything(found)) == 16


def test_a_piece_is_of_bounded_time() -> None:
    ticks = itertools.count()
    found = reader(ring_of(*(event(number + 1) for number in range(20))), Clock(lambda: next(ticks), lambda: 5))
    assert len(found.piece(3.5)) == 4
    back = reader(
        ring_of(*(event(number + 1) for number in range(20))), Clock(lambda: next(ticks), lambda: 5), number=10
    )
    assert everything(back) == list(range(11, 21))


def test_what_is_overwritten_while_going_back_is_told() -> None:
    ring = ring_of(*(event(number + 1) for number in range(7)), capacity=7)
    found = reader(ring, number=5)
    assert found.piece(1.0) == []
    for number in range(8, 13):
        ring.append(event(number))
    assert everything(found) == [-3, 6, 7]


def test_a_follower_is_told_of_its_losses_now_and_then() -> None:
    ring, now = ring_of(capacity=7), [100.0]
    found = reader(ring, Clock(lambda: now[0], lambda: 5), follow=True)
    for number in range(1, 11):
        ring.append(event(number))
    assert ports(found.piece(1.0)) == [-3, *range(4, 11)]
    for number in range(11, 21):
        ring.append(event(number))
    assert ports(found.piece(1.0)) == list(range(14, 21))
    assert found.losses.wait() == pytest.approx(LOSS_INTERVAL)
    now[0] += LOSS_INTERVAL
    assert ports(found.piece(1.0)) == [-3]
    assert not found.is_done
    assert not found.has_work


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "number": st.integers(0, 40),
        "first": st.booleans(),
        "since": st.integers(1, 60).map(lambda ns: {"nanos": ns}),
        "until": st.integers(1, 60).map(lambda ns: {"nanos": ns}),
        "whitelist": st.sampled_from(([], [{"verdict": [1]}], [{"verdict": [2]}])),
    },
)


@settings(max_examples=200)
@given(st.lists(st.booleans(), max_size=60), st.sampled_from((7, 31, 63)), REQUESTS)
def test_any_request_over_any_ring(is_flow: list[bool], capacity: int, request: dict[str, Any]) -> None:
    """Against the rules as Hubble's manual has them, on plain lists."""
    events = [event(n + 1) if flow else LOSS._replace(time_ns=n + 1) for n, flow in enumerate(is_flow)]
    kept = events[-capacity:]
    wanted = {1: 0, 2: 1}[request["whitelist"][0]["verdict"][0]] if request.get("whitelist") else None

    def matches(one: Event) -> bool:
        return not one.is_loss and wanted in (None, one.time_ns % 2)

    number = request.get("number", 0)
    if "since" in request:
        kept = [one for one in kept if one.time_ns >= request["since"]["nanos"]]
    elif number and not request.get("first"):
        matching = [at for at, one in enumerate(kept) if matches(one)]
        kept = kept[matching[-number] if len(matching) >= number else 0 :]
    expected = []
    for one in kept:
        if not one.is_loss and one.time_ns > request.get("until", {"nanos": 99})["nanos"]:
            break
        if one.is_loss or matches(one):
            expected.append(-9 if one.is_loss else one.time_ns)
        if number and len([at for at in expected if at > 0]) == number:
            break
    assert everything(reader(ring_of(*events, capacity=capacity), **request)) == expected


def test_a_loss_after_the_end_of_a_reading_is_not_told() -> None:
    ring = ring_of(LOSS._replace(time_ns=1), event(2), LOSS._replace(time_ns=3))
    wanted = {"whitelist": [{"verdict": [2]}], "until": {"nanos": 1}}
    assert everything(reader(ring, **wanted)) == everything(reader(ring, number=1, **wanted)) == [-9]

"""Denials outlive floods of what was forwarded, and every flow is accounted for."""

from __future__ import annotations

from typing import Any

from flow import flow_pb2
from hypothesis import given
from hypothesis import strategies as st
from observer import observer_pb2

from flows.denials import Denials
from flows.reader import Clock, Reader
from flows.reading import compile_request
from flows.ring import Event, Ring
from tests.flows.make import XWING, denied, drop, exchange, flows_in, intake, message

STILL = Clock(lambda: 100.0, lambda: 5)
DROPPED = {"whitelist": [flow_pb2.FlowFilter(verdict=[flow_pb2.DROPPED])]}


def event(number: int, is_denial: bool) -> Event:
    """A flow that is told from others by its proxy port."""
    flow = flow_pb2.Flow(proxy_port=number + 1, verdict=flow_pb2.DROPPED if is_denial else flow_pb2.FORWARDED)
    return Event(number, flow.SerializeToString(), is_denial=is_denial)


def ring_of(kinds: list[bool], capacity: int = 7) -> Ring:
    ring = Ring(capacity)
    for number, is_denial in enumerate(kinds):
        ring.append(event(number, is_denial))
    return ring


def reader(ring: Ring, **request: Any) -> Reader:
    return Reader(ring, compile_request(observer_pb2.GetFlowsRequest(**request)), "n1", STILL)


def numbers(batch: list[bytes]) -> list[int]:
    sent = [observer_pb2.GetFlowsResponse.FromString(one) for one in batch]
    return [one.flow.proxy_port - 1 for one in sent if one.HasField("flow")]


def everything(found: Reader) -> list[int]:
    seen = []
    while not found.is_done:
        seen += numbers(found.piece(1.0))
    return seen


def lost(batch: list[bytes]) -> int:
    sent = [observer_pb2.GetFlowsResponse.FromString(one) for one in batch]
    return sum(one.lost_events.num_events_lost for one in sent)


kinds = st.lists(st.booleans(), max_size=40)


def held(kinds: list[bool], capacity: int = 7) -> list[int]:
    """What can be read: the last events, and before them the denials that are still held."""
    start = max(0, len(kinds) - capacity)
    denials = [number for number, is_denial in enumerate(kinds) if is_denial][-capacity:]
    return [*(number for number in denials if number < start), *range(start, len(kinds))]


@given(kinds)
def test_all_that_is_held_is_read_in_order(kinds: list[bool]) -> None:
    assert everything(reader(ring_of(kinds))) == held(kinds)
    assert everything(reader(ring_of(kinds), first=True, number=3)) == held(kinds)[:3]


@given(kinds, st.integers(1, 10))
def test_the_last_denials_are_found_however_many_flows_came_after(kinds: list[bool], count: int) -> None:
    expected = [number for number in held(kinds) if kinds[number]][-count:]
    assert everything(reader(ring_of(kinds), number=count, **DROPPED)) == expected


@given(kinds, st.integers(0, 40))
def test_since_finds_denials_from_before_the_ring(kinds: list[bool], since_ns: int) -> None:
    found = reader(ring_of(kinds), since={"nanos": since_ns})
    assert everything(found) == [number for number in held(kinds) if number >= since_ns]


@given(kinds, kinds)
def test_a_slow_follower_gets_the_denials_and_is_told_the_rest(before: list[bool], after: list[bool]) -> None:
    ring = ring_of(before)
    found = reader(ring, follow=True)
    for number, is_denial in enumerate(after, len(before)):
        ring.append(event(number, is_denial))
    got, missed = [], 0
    while found.has_work:
        batch = found.piece(1.0)
        got += numbers(batch)
        missed += lost(batch)
    assert got == [number for number in held(before + after) if number >= len(before)]
    assert len(got) + found.losses.total == len(after)
    assert found.sent == len(got)


def test_a_history_is_no_loss() -> None:
    found = reader(ring_of([True] + [False] * 30))
    assert everything(found) == [0, *range(24, 31)]
    assert found.losses.total == 0


def test_denials_that_nobody_read_in_time_are_built_when_somebody_does() -> None:
    made = intake(reading=False, capacity=7)
    made.access_log(message(*exchange(), denied(), *exchange()))
    made.packets([drop(source_port=1)])
    for _ in range(50):
        made.access_log(message(*exchange()))
    made.build()
    kept = [found.flow() for _, found in made.ring.denials.between(0, made.ring.start)]
    assert [flow.verdict for flow in kept] == [flow_pb2.DROPPED] * 2
    assert kept[0].l7.http.method == "PUT"
    assert kept[1].IP.source == XWING
    times = [flow.time.ToNanoseconds() for flow in [*kept, *flows_in(made.ring)]]
    assert times == sorted(set(times))


def test_under_a_flood_every_flow_is_accounted_for() -> None:
    made = intake(reading=False, capacity=127)
    for round_ in range(300):
        made.access_log(message(*(one for _ in range(5) for one in exchange()), denied()))
        if round_ % 100 == 99:
            made.build()
    ring = made.ring
    produced, denials = 300 * 12, 300
    assert ring.flows_seen == produced
    assert ring.denials.seen == denials
    assert len(ring.denials) == 127
    assert len(ring.denials) + ring.denials.overwritten == denials
    built = ring.flows_seen - ring.flows_skipped
    assert built >= len(ring) + sum(at < ring.start for at, _ in ring.denials.between(0, ring.end))


@given(st.lists(st.integers(1, 5), max_size=60), st.integers(0, 200))
def test_the_ring_of_denials_is_a_list_of_the_last(steps: list[int], asked: int) -> None:
    ring, model, at = Denials(7), list[int](), 0
    for step in steps:
        at += step
        ring.append(at, Event(at, b""))
        model = [*model, at][-7:]
    assert [number for number, _ in ring.between(0, at + 1)] == model
    assert ring.oldest == (model[0] if model else None)
    assert ring.last_before(asked) == max((number for number in model if number < asked), default=None)
    assert ring.first_since(asked) == min((number for number in model if number >= asked), default=None)
    assert (ring.get(asked) is not None) == (asked in model)
    assert ring.overwritten == len(steps) - len(model)

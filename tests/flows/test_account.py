"""Under any flood, with readers that come and go, what became of every flow adds up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flow import flow_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from observer import observer_pb2

from flows.account import ReaderAccount
from flows.intake import Intake
from flows.observer import Observer
from flows.reader import Clock, Reader
from flows.reading import compile_request
from flows.ring import Ring
from tests.flows.make import Galaxy, denied, drop, exchange, intake, message

CAPACITY = 31
STILL = Clock(lambda: 100.0, lambda: 5)
FILTERS: tuple[list[flow_pb2.FlowFilter], ...] = (
    [],
    [flow_pb2.FlowFilter(verdict=[flow_pb2.DROPPED])],
    [flow_pb2.FlowFilter(http_path=["^/v1"])],
)


@dataclass
class Follower:
    """A reader, and what there was when it came."""

    reader: Reader
    since: int
    losses_before: int

    def read(self) -> None:
        self.reader.piece(1.0)

    def check(self, ring: Ring, losses: int) -> None:
        """Whatever came since is sent, passed over, lost, or waits; a loss from before the ring is an event too."""
        while self.reader.has_work:
            self.read()
        told = self.reader.account
        assert told.sent + told.passed_over + told.lost + self.reader.passed_on == ring.end - self.since
        assert self.reader.passed_on <= losses - self.losses_before


def follower(made: Intake, wanted: list[flow_pb2.FlowFilter], losses: int) -> Follower:
    request = observer_pb2.GetFlowsRequest(follow=True, whitelist=wanted)
    return Follower(Reader(made.ring, compile_request(request), "n1", STILL), made.ring.end, losses)


def check(ring: Ring) -> None:
    """The account against what can be found in the ring."""
    found = ring.account()
    older = [at for at, _ in ring.denials.between(0, ring.start)]
    there = [event for event in ring.slice(ring.start, ring.end) if not event.is_loss]
    assert found.held == len(there) + len(older)
    assert found.produced == found.skipped + found.held + found.overwritten
    assert found.denials == found.denials_held + found.denials_overwritten
    assert found.denials_held == len(ring.denials.between(0, ring.end)) <= CAPACITY


BURSTS = st.tuples(
    st.sampled_from(("forwarded", "denied", "mixed", "packets", "lost", "build")), st.integers(1, 2 * CAPACITY)
)
READERS = st.tuples(st.sampled_from(("come", "read", "go")), st.integers(0, 5))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(BURSTS, READERS), max_size=25))
def test_every_flow_is_accounted_for(story: list[tuple[str, int]]) -> None:
    made, losses = intake(reading=False, capacity=CAPACITY), 0
    followers: list[Follower] = []
    for what, number in story:
        if what == "come":
            made.build()
            made.reading = True
            followers.append(follower(made, FILTERS[number % len(FILTERS)], losses))
        elif what in ("read", "go"):
            for one in followers[number : number + 1]:
                one.read()
                if what == "go":
                    followers.remove(one)
                    made.reading = bool(followers)
        else:
            losses += what == "lost"
            burst(made, what, number)
        check(made.ring)
    for one in followers:
        one.check(made.ring, losses)


def burst(made: Intake, what: str, number: int) -> None:
    forwarded = [entry for port in range(number) for entry in exchange(port=port)]
    refused = [denied(port=port) for port in range(number)]
    match what:
        case "forwarded":
            made.access_log(message(*forwarded))
        case "denied":
            made.access_log(message(*refused))
        case "mixed":
            made.access_log(message(*forwarded, *refused[:3]))
        case "packets":
            made.packets([drop(source_port=port) for port in range(number)])
        case "lost":
            made.lost(number)
        case "build":
            made.build(number)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6), st.booleans()), max_size=20))
def test_a_follower_of_denials_gets_all_that_it_could(rounds: list[tuple[int, int, bool]]) -> None:
    """However many flows are forwarded in between: a denial is lost only to CAPACITY denials after it."""
    made = intake(capacity=CAPACITY)
    one = follower(made, FILTERS[1], 0)
    refused = waiting = 0
    is_sure = True
    for forwarded, denials, reads in rounds:
        made.access_log(message(*(e for port in range(forwarded) for e in exchange(port=port)), *[denied()] * denials))
        refused, waiting = refused + denials, waiting + denials
        is_sure = is_sure and waiting <= CAPACITY
        if reads:
            while one.reader.has_work:
                one.read()
            waiting = 0
    one.check(made.ring, 0)
    assert one.reader.sent == refused if is_sure else one.reader.sent <= refused


async def test_the_observer_keeps_the_accounts_of_those_that_have_gone() -> None:
    observer = Observer(Galaxy, version="0.0.0", capacity=CAPACITY)
    observer.access_log(message(*exchange(), denied()))
    everything: dict[str, Any] = {"first": True}
    for _ in range(2):
        async for _ in observer.flows(compile_request(observer_pb2.GetFlowsRequest(**everything))):
            [ended, reading] = observer.reader_accounts()
            assert reading.sent
    assert observer.reader_accounts() == [ended + reading]
    assert ended + reading == ReaderAccount(sent=2 * observer.account().produced)

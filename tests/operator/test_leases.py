"""Who may take a lease, by whose clock, and what a ballot says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent.operator.leases import Ballot, Observer, Timing, released, taken

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TIMING = Timing()


def ballot(body: dict[str, object], version: str = "1") -> Ballot:
    return Ballot.of({**body, "metadata": {"resourceVersion": version}})


def test_a_lease_that_is_renewed_is_never_free() -> None:
    observer, held = Observer(15.0), None
    for second in range(0, 100, 10):
        held = ballot(taken(held, "leia", TIMING, NOW + timedelta(seconds=second)))
        assert not observer.may_take(held, "han", float(second))


def test_a_silent_leader_loses_it_after_its_time_by_the_clock_of_who_looks() -> None:
    observer = Observer(15.0)
    held = ballot(taken(None, "leia", TIMING, NOW - timedelta(days=1)))  # her clock is a day behind
    assert not observer.may_take(held, "han", 100.0)
    assert not observer.may_take(held, "han", 114.9)
    assert observer.may_take(held, "han", 115.0)


def test_what_is_given_back_is_free_at_once_and_what_is_ours_is_ours() -> None:
    held = ballot(taken(None, "leia", TIMING, NOW))
    assert Observer(15.0).may_take(held, "leia", 0.0)
    assert Observer(15.0).may_take(ballot(released(held, NOW)), "han", 0.0)


def test_transitions_count_leaders_and_not_renewals() -> None:
    first = ballot(taken(None, "leia", TIMING, NOW))
    again = ballot(taken(first, "leia", TIMING, NOW + timedelta(seconds=2)))
    assert (again.transitions, again.acquired) == (0, first.acquired)
    other = ballot(taken(again, "han", TIMING, NOW + timedelta(seconds=30)))
    assert other.transitions == 1
    assert other.acquired != first.acquired


def test_a_ballot_names_the_version_that_was_seen() -> None:
    seen = ballot(taken(None, "leia", TIMING, NOW), "42")
    assert taken(seen, "han", TIMING, NOW)["metadata"] == {"resourceVersion": "42"}
    assert taken(None, "han", TIMING, NOW)["metadata"] == {}
    assert taken(seen, "han", TIMING, NOW)["spec"]["renewTime"] == "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("timing", [Timing(15, 15, 2), Timing(15, 10, 9), Timing(15, 10, 0)])
def test_times_that_cannot_work_are_refused(timing: Timing) -> None:
    assert timing.fault()
    assert not TIMING.fault()

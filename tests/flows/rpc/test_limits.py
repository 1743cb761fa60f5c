"""So much at once, and so much per second."""

from __future__ import annotations

from flows.rpc.limits import Allowance


def test_a_burst_is_allowed_and_comes_back_with_time() -> None:
    allowance = Allowance(3, 2.0, 100.0)
    assert [allowance.spend(100.0) for _ in range(4)] == [True, True, True, False]
    assert [allowance.spend(101.5) for _ in range(3)] == [True, True, False]


def test_no_more_than_the_burst_is_saved_up() -> None:
    allowance = Allowance(2, 1.0, 0.0)
    assert [allowance.spend(1000.0) for _ in range(3)] == [True, True, False]

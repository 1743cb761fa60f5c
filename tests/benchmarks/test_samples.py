"""Statistics: what they say of few samples, and that legs take turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.samples import in_turns, median, medians, paired_ratio, percentile

numbers = st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=200)


def test_the_99th_percentile_of_a_hundred_samples_is_the_99th() -> None:
    assert percentile(range(1, 101), 0.99) == 99
    assert percentile(range(1, 101), 1) == 100


def test_of_few_samples_the_99th_percentile_is_the_worst() -> None:
    assert percentile([3.0, 9.0, 1.0], 0.99) == 9.0


@given(numbers, st.floats(0.01, 1))
def test_a_percentile_is_a_sample_that_the_share_does_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) * (1 - 1e-9)


def test_no_samples_have_no_statistics() -> None:
    for statistic in (median, lambda values: percentile(values, 0.5)):
        with pytest.raises(ValueError, match="no samples"):
            statistic([])
    with pytest.raises(ValueError, match="within"):
        percentile([1.0], 0)


def test_drift_does_not_touch_a_paired_ratio() -> None:
    """The machine becomes four times slower from the first round to the last; both legs feel it alike."""
    bare = [1000.0, 700.0, 500.0, 250.0]
    assert paired_ratio([0.9 * rps for rps in bare], bare) == pytest.approx(0.9)


def test_a_ratio_needs_both_legs_of_each_round() -> None:
    with pytest.raises(ValueError):
        paired_ratio([1.0, 2.0], [1.0])


def test_legs_take_turns_and_none_is_always_first() -> None:
    assert list(in_turns("AB", 3)) == [(0, "A"), (0, "B"), (1, "B"), (1, "A"), (2, "A"), (2, "B")]


def test_medians_by_leg() -> None:
    assert medians({"direct": [1, 9, 2], "bare": [4]}) == {"direct": 2, "bare": 4}

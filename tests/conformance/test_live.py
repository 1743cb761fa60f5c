"""Loops of requests while policy changes: which answers are right when."""

from __future__ import annotations

import pytest

from conformance.expectation import Answer, Reaction
from conformance.live import Change, Sample, judge
from conformance.scenario import Settle

CHANGE = Change(begun=10.0, enforced=11.0)
EDIT = Settle("loop", before=403, after=503)
ADDED = Settle("loop", before=503, after=403, resets=True)


def got(status: int, sent: float, opened: float = 0.0) -> Sample:
    return Sample(opened, sent, sent + 0.1, Answer(Reaction.ANSWERED, status))


def broke(reaction: Reaction, sent: float, opened: float = 0.0) -> Sample:
    return Sample(opened, sent, sent + 0.1, Answer(reaction, note="oops"))


BEFORE, AFTER = [got(403, t) for t in (8.0, 9.0)], [got(503, t) for t in (11.1, 11.2, 11.3)]


def test_old_answers_before_new_ones_after_and_either_in_between() -> None:
    assert judge([*BEFORE, got(403, 10.2), got(503, 10.4), *AFTER], CHANGE, EDIT) == []


WRONG = [
    ([got(503, 9.0)], "1 times 503 instead of 403 before or during the change"),
    ([got(403, 11.5)], "1 times 403 instead of 503 after the change"),
    ([got(200, 10.5)], "1 times 200 instead of 403 or 503 before or during the change"),
    ([got(500, 12.0), got(500, 12.5)], "2 times 500 instead of 503 after the change"),
    ([broke(Reaction.RESET, 10.5)], "1 times no answer: reset (oops)"),
    ([broke(Reaction.TIMEOUT, 11.5)], "1 times no answer: timeout (oops)"),
]


@pytest.mark.parametrize(("samples", "complaint"), WRONG, ids=[complaint for _, complaint in WRONG])
def test_any_other_answer_is_told(samples: list[Sample], complaint: str) -> None:
    assert judge([*BEFORE, *samples, *AFTER], CHANGE, EDIT) == [complaint]


def test_silence_after_the_change_is_no_proof() -> None:
    assert judge(BEFORE, CHANGE, EDIT) == ["only 0 answers under the new policy, expected at least 3"]


def test_resets_are_excused_once_the_change_has_begun_and_for_connections_from_before() -> None:
    after = [got(403, t, opened=11.0) for t in (11.1, 11.2, 11.3)]
    before = [got(503, 9.0)]
    assert judge([*before, broke(Reaction.RESET, 10.5), *after], CHANGE, ADDED) == []
    assert judge([*before, broke(Reaction.RESET, 12.0, opened=9.0), *after], CHANGE, ADDED) == []
    assert judge([*before, broke(Reaction.RESET, 12.0, opened=11.5), *after], CHANGE, ADDED) != []
    assert judge([*before, broke(Reaction.RESET, 8.0), *after], CHANGE, ADDED) != []
    assert judge([*before, broke(Reaction.TIMEOUT, 10.5), *after], CHANGE, ADDED) != []

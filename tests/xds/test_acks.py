"""The book of ACKs, and the reading of Envoy's complaints."""

from __future__ import annotations

import pytest

from tests.xds.worlds import ECDS, LDS
from xds.acks import MAX_MESSAGE, AckBook, offenders, one_line
from xds.resources import Key

A, B, F = Key(LDS, "a"), Key(LDS, "b"), Key(ECDS, "a")


def test_accepted_is_who_holds_the_version_that_is_served() -> None:
    book = AckBook()
    book.acked(LDS, {A: "1", B: "1"}, ())
    result = book.judge({A: "1", B: "2"}, {})
    assert (result.acked, result.missing) == ({A}, {B})
    assert not result.is_complete


def test_gone_is_what_is_not_served_and_not_held() -> None:
    book = AckBook()
    book.acked(LDS, {A: "1"}, ())
    assert book.judge({A: None}, {}).missing == {A}
    book.acked(LDS, {}, {A})
    assert book.judge({A: None}, {}).acked == {A}


def test_nobody_knows_what_a_silent_proxy_does_not_hold() -> None:
    book = AckBook()
    assert book.judge({A: None, F: None}, {}).missing == {A, F}
    book.acked(LDS, {}, ())
    assert book.judge({A: None, F: None}, {}).acked == {A, F}


def test_a_refusal_counts_even_though_the_last_good_form_was_accepted() -> None:
    book = AckBook()
    book.acked(LDS, {A: "good.1"}, ())
    result = book.judge({A: "good.1"}, {A: "no"})
    assert (result.nacked, result.acked) == ({A: "no"}, frozenset())


def test_after_a_nack_all_of_the_response_is_unknown() -> None:
    book = AckBook()
    book.acked(LDS, {A: "1", B: "1"}, ())
    book.forget([A, B])
    assert book.judge({A: "1", B: "1"}, {}).missing == {A, B}


def test_a_new_stream_empties_the_book() -> None:
    book = AckBook()
    book.acked(LDS, {A: "1"}, ())
    book.reset()
    assert book.held(A) is None


BUSY = "Error adding/updating listener(s) ingress:1:80: cannot bind '0.0.0.0:8080': Address already in use\n"


@pytest.mark.parametrize(
    ("message", "guilty"),
    [
        (BUSY, {"ingress:1:80"}),
        (BUSY + "ingress:1:8080: other\n", {"ingress:1:80", "ingress:1:8080"}),
        ("Error adding/updating listener(s) egress:1:80: no", {"ingress:1:80", "ingress:1:8080"}),
        ("Failed to load filter ingress:1:8080.", {"ingress:1:8080"}),
        ("no names at all", {"ingress:1:80", "ingress:1:8080"}),
    ],
)
def test_offenders_are_named_whole_or_not_at_all(message: str, guilty: set[str]) -> None:
    keys = [Key(LDS, "ingress:1:80"), Key(LDS, "ingress:1:8080")]
    assert {key.name for key in offenders(message, keys)} == guilty


def test_a_complaint_fits_on_a_line() -> None:
    assert one_line("a: no\n\n b: no\n") == "a: no; b: no"
    assert len(one_line("x" * 10_000)) <= MAX_MESSAGE + 3

"""What an answer teaches, along the chain that begins at the name that was asked for."""

from __future__ import annotations

import pytest

from l7proxy.dns.answers import NO_TTL, ForeignAnswer, Gist, Learned, gist
from l7proxy.dns.wire import Question, read_response
from tests.l7proxy.dns.make import answer, query, question

A1, A2 = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 2))
WWW = (question("www.example.org."),)


def taught(*records: str, questions: tuple[Question, ...] = WWW, rcode: int = 0) -> Gist:
    return gist(questions, read_response(answer(query("www.example.org"), *records, rcode=rcode)))


def test_addresses_of_the_name() -> None:
    found = taught("www.example.org. 30 IN A 192.0.2.1", "www.example.org. 30 IN A 192.0.2.2")
    assert found.learned == (Learned("www.example.org.", (A1, A2), 30),)
    assert found.addresses == (A1, A2)


CHAIN = (
    "www.example.org. 300 IN CNAME a.cdn.net.",
    "a.cdn.net. 20 IN CNAME b.cdn.net.",
    "b.cdn.net. 60 IN A 192.0.2.1",
)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_a_chain_teaches_the_name_asked_for_with_the_lowest_ttl(order: tuple[int, ...]) -> None:
    found = taught(*(CHAIN[i] for i in order))
    assert found.learned == (Learned("www.example.org.", (A1,), 20, ("a.cdn.net.", "b.cdn.net.")),)
    assert sorted(found.cnames) == ["a.cdn.net.", "b.cdn.net."]
    assert found.ttl == 20


@pytest.mark.parametrize(
    "stranger",
    ["bank.com. 30 IN A 192.0.2.1", "bank.com. 30 IN CNAME www.example.org.", "bank.com. 30 IN AAAA 2001:db8::1"],
)
def test_an_answer_about_another_name_is_foreign(stranger: str) -> None:
    with pytest.raises(ForeignAnswer, match=r"bank\.com\."):
        taught("www.example.org. 30 IN A 192.0.2.1", stranger)


def test_other_records_of_other_names_are_nobody_s_business() -> None:
    """A DNAME and the signatures of DNSSEC stand where they belong."""
    found = taught("www.example.org. 30 IN A 192.0.2.1", "org. 30 IN DNAME net.", "elsewhere. 30 IN TXT x")
    assert found.learned[0].addresses == (A1,)


def test_a_circle_of_aliases_ends() -> None:
    found = taught("www.example.org. 30 IN CNAME a.org.", "a.org. 30 IN CNAME www.example.org.")
    assert found.learned == ()


@pytest.mark.parametrize("rcode", [2, 3, 5])
def test_only_success_teaches(rcode: int) -> None:
    assert taught("www.example.org. 30 IN A 192.0.2.1", rcode=rcode).learned == ()


def test_an_answer_without_records_has_no_ttl() -> None:
    assert taught() == Gist(ttl=NO_TTL)


def test_each_question_is_taught_its_own() -> None:
    both = (question("a.org."), question("b.org.", 28))
    found = taught("a.org. 30 IN A 192.0.2.1", "b.org. 40 IN A 192.0.2.2", questions=both)
    assert found.learned == (Learned("a.org.", (A1,), 30), Learned("b.org.", (A2,), 40))


def test_a_zone_transfer_teaches_nothing() -> None:
    assert taught("x.org. 30 IN A 192.0.2.1", questions=(question("org.", 252),)) == Gist()

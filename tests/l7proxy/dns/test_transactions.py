"""The book of open queries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from l7proxy.dns.judge import Decision
from l7proxy.dns.transactions import Admitted, Client, Limits, Transaction, Transactions
from l7proxy.dns.wire import Response, read_query, read_response
from policies.types import Protocol
from tests.l7proxy.dns.make import answer, client, query

ASKED = query("www.example.org", id=7)


def drawing(*numbers: int) -> Callable[[], int]:
    source: Iterator[int] = iter(numbers) if numbers else count(1000)
    return lambda: next(source)


def book(limits: Limits | None = None, *numbers: int) -> Transactions:
    return Transactions(limits or Limits(), drawing(*numbers))


def opened(
    transactions: Transactions, channel: int = 1, who: Client | None = None, message: bytes = ASKED, now: float = 0.0
) -> Transaction:
    admitted = Admitted(read_query(message), Decision(None))
    made = transactions.open(channel, who or client(), message, admitted, now=now, timeout=10.0)
    assert made is not None
    return made


def response(transaction: Transaction, **change: object) -> Response:
    return read_response(answer(transaction.outgoing()))._replace(**change)  # type: ignore[arg-type]


def test_the_server_sees_an_id_of_ours_and_the_client_its_own() -> None:
    transactions = book()
    one = opened(transactions)
    assert one.outgoing() == (1000).to_bytes(2, "big") + ASKED[2:]
    reply = answer(one.outgoing())
    assert transactions.answered(1, read_response(reply)) is one
    assert one.incoming(reply) == b"\0\7" + reply[2:]


def test_an_answer_of_another_id_channel_or_question_is_none() -> None:
    transactions = book()
    one = opened(transactions)
    assert transactions.answered(1, response(one, id=999)) is None
    assert transactions.answered(2, response(one)) is None
    assert transactions.answered(1, response(one, questions=())) is None
    other = read_response(answer(query("evil.org", id=one.id)))
    assert transactions.answered(1, other) is None
    assert transactions.answered(1, response(one)) is one  # still awaited


def test_case_does_not_matter_for_whose_answer_it_is() -> None:
    transactions = book()
    one = opened(transactions, message=query("wWw.EXAMPLE.org", id=7))
    assert transactions.answered(1, read_response(answer(query("www.example.org", id=one.id)))) is one


def test_a_server_that_could_not_read_the_question_need_not_repeat_it() -> None:
    transactions = book()
    one = opened(transactions)
    assert transactions.answered(1, response(one, questions=(), rcode=0)) is None
    assert transactions.answered(1, response(one, questions=(), rcode=1, rrtypes=(1,))) is None
    assert transactions.answered(1, response(one, questions=(), rcode=1)) is one


def test_a_second_answer_belongs_to_nothing() -> None:
    transactions = book()
    one = opened(transactions)
    assert transactions.answered(1, response(one)) is one
    assert transactions.answered(1, response(one)) is None
    assert len(transactions) == 1  # its answer may be held
    transactions.settle(one)
    transactions.settle(one)
    assert len(transactions) == 0


def test_a_repetition_is_the_same_query_until_it_is_settled() -> None:
    transactions = book()
    one = opened(transactions)
    assert transactions.repeated(client(), ASKED) is one
    assert transactions.repeated(client(port=40001), ASKED) is None
    assert transactions.repeated(client(), query("www.example.org", id=8)) is None
    transactions.settle(one)
    assert transactions.repeated(client(), ASKED) is None


def test_ids_that_are_taken_are_drawn_again() -> None:
    transactions = book(None, 5, 5, 5, 6)
    first = opened(transactions)
    second = opened(transactions, who=client(port=2))
    assert (first.id, second.id) == (5, 6)


def test_one_pod_cannot_fill_the_book() -> None:
    transactions = book(Limits(per_pod=2, whole=3))
    for port in (1, 2):
        opened(transactions, port, client(port=port))
    assert not transactions.has_room(client().pod)
    full = transactions.open(3, client(port=3), ASKED, read_query(ASKED), now=0, timeout=1)
    assert full is None
    opened(transactions, 4, client("10.0.0.3"))
    assert not transactions.has_room("10.0.0.4")  # the whole is full


def test_what_is_not_answered_in_time_is_given_up() -> None:
    transactions = book()
    early, late = (opened(transactions, n, client(port=n), now=float(n)) for n in (1, 2))
    assert transactions.expire(10.9) == []
    assert transactions.expire(11.0) == [early]
    assert transactions.expire(99.0) == [late]
    assert len(transactions) == 0
    assert transactions.has_room(client().pod)


def test_a_transfer_goes_on_message_by_message() -> None:
    transactions = book()
    one = opened(transactions, who=client(protocol=Protocol.TCP, number=1))
    for now in (5.0, 12.0, 20.0):
        assert transactions.answered(1, response(one)) is one
        transactions.await_more(one, now=now, timeout=10.0)
    assert transactions.expire(29.0) == []
    assert transactions.expire(30.0) == [one]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.sampled_from(["open", "settle", "expire"]))))
def test_whatever_happens_the_book_counts_right(steps: list[tuple[int, int, str]]) -> None:
    transactions = book(Limits(per_pod=3, whole=6))
    live: dict[Client, Transaction] = {}
    now = 0.0
    for pod, port, step in steps:
        now += 1.0
        who = client(f"10.0.0.{pod}", port)
        if step == "open" and who not in live:
            made = transactions.open(
                port, who, ASKED, Admitted(read_query(ASKED), Decision(None)), now=now, timeout=3.0
            )
            room = len(live) < 6 and sum(one.pod == who.pod for one in live) < 3
            assert (made is not None) == room
            if made is not None:
                live[who] = made
        elif step == "settle" and who in live:
            transactions.settle(live.pop(who))
        elif step == "expire":
            for late in transactions.expire(now):
                assert live.pop(late.client) is late
            assert all(one.deadline > now for one in live.values())
        assert len(transactions) == len(live)

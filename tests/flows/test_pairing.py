"""Two flows per exchange, however its entries come."""

from __future__ import annotations

from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from hypothesis import given
from hypothesis import strategies as st

from flows.accesslog.decode import decode_entry
from flows.accesslog.pairing import Pairing
from flows.record import HttpRecord
from tests.flows.make import denied, entry, exchange


def record(made: HTTPAccessLogEntry) -> HttpRecord:
    decoded = decode_entry(made)
    assert decoded is not None
    return decoded


def told(pairing: Pairing, *entries: HTTPAccessLogEntry) -> list[str]:
    """The halves that these entries bring, in words."""
    halves = pairing.halves([record(one) for one in entries])
    return [
        f"response {half.record.code}" if half.is_response else "dropped" if half.is_dropped else "request"
        for half in halves
    ]


def test_an_allowed_exchange() -> None:
    pairing = Pairing()
    forwarded, ended = exchange()
    assert told(pairing, forwarded) == ["request"]
    assert told(pairing, ended) == ["response 200"]
    assert len(pairing) == 0


def test_a_denied_request_is_dropped_and_answered() -> None:
    assert told(Pairing(), denied()) == ["dropped", "response 403"]


def test_a_request_that_found_no_upstream_still_has_both_halves() -> None:
    assert told(Pairing(), entry(code=503, details="no_healthy_upstream")) == ["request", "response 503"]


def test_a_request_that_died_without_a_response_has_one_half() -> None:
    assert told(Pairing(), entry(code=0)) == ["request"]
    assert told(Pairing(), entry(ended=False), entry(code=0)) == ["request"]


def test_identical_concurrent_streams_are_interchangeable() -> None:
    pairing = Pairing()
    assert told(pairing, entry(ended=False), entry(ended=False)) == ["request", "request"]
    assert told(pairing, entry(), entry(code=500)) == ["response 200", "response 500"]


def test_a_denial_leaves_the_count_of_its_twin_alone() -> None:
    pairing = Pairing()
    assert told(pairing, entry(ended=False), denied(), entry()) == [
        "request",
        "dropped",
        "response 403",
        "response 200",
    ]


def test_other_connections_are_other_exchanges() -> None:
    pairing = Pairing()
    assert told(pairing, entry(ended=False, port=1), entry(port=2)) == ["request", "request", "response 200"]


def test_what_is_open_is_bounded_and_the_oldest_is_forgotten() -> None:
    pairing = Pairing(limit=2)
    told(pairing, *[entry(ended=False, port=port) for port in (1, 2, 3)])
    assert (len(pairing), pairing.forgotten) == (2, 1)
    assert told(pairing, entry(port=1)) == ["request", "response 200"]
    assert told(pairing, entry(port=3)) == ["response 200"]


KINDS = st.lists(st.tuples(st.integers(1, 3), st.sampled_from(("allowed", "denied", "failed", "dead"))), max_size=20)


@given(KINDS, st.randoms(use_true_random=False))
def test_as_many_requests_as_exchanges_in_any_order(kinds: list[tuple[int, str]], random: object) -> None:
    """Entries of one exchange keep their order; those of different exchanges may mix."""
    queues = []
    for port, kind in kinds:
        queues.append(
            {
                "allowed": exchange(port=port),
                "denied": [denied(port=port)],
                "failed": [entry(port=port, code=503)],
                "dead": [entry(port=port, ended=False), entry(port=port, code=0)],
            }[kind]
        )
    mixed = []
    while any(queues):
        queue = random.choice([queue for queue in queues if queue])  # type: ignore[attr-defined]
        mixed.append(queue.pop(0))
    pairing = Pairing()
    said = told(pairing, *mixed)
    requests = [word for word in said if not word.startswith("response")]
    # A failure looks like the end of a forwarded twin: then the twin's end brings the request instead.
    assert len(requests) == len(kinds)
    assert said.count("dropped") == sum(kind == "denied" for _, kind in kinds)
    assert len(pairing) == 0

"""Two flows per exchange, however its entries come."""

from __future__ import annotations

from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from hypothesis import given
from hypothesis import strategies as st

from flows.accesslog.decode import decode_entry
from flows.accesslog.pairing import Pairing
from flows.record import HttpRecord
from tests.flows.make import START_NS, denied, entry, exchange, seen


def record(made: HTTPAccessLogEntry) -> HttpRecord:
    decoded = decode_entry(seen(made))
    assert decoded is not None
    return decoded


def told(pairing: Pairing, *entries: HTTPAccessLogEntry) -> list[str]:
    """What these entries newly tell, in words."""
    words = []
    for one, has_request, has_response in pairing.news([record(one) for one in entries]):
        words += ["request" if one.denied_by is None else "dropped"] * has_request
        words += [f"response {one.code}"] * has_response
    return words


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


def test_an_open_exchange_is_told_of_once_however_often_it_is_logged() -> None:
    pairing = Pairing()
    still_open = entry(ended=False)
    assert told(pairing, still_open, still_open, still_open) == ["request"]
    assert told(pairing, entry()) == ["response 200"]


def test_concurrent_streams_of_one_connection_are_told_apart_by_their_start() -> None:
    pairing = Pairing()
    assert told(pairing, entry(ended=False), entry(ended=False, start_ns=START_NS + 1)) == ["request", "request"]
    assert told(pairing, entry(), entry(code=500, start_ns=START_NS + 1)) == ["response 200", "response 500"]


def test_a_denial_beside_an_open_twin_is_its_own_exchange() -> None:
    pairing = Pairing()
    twin = denied(start_ns=START_NS + 1)
    assert told(pairing, entry(ended=False), twin, entry()) == ["request", "dropped", "response 403", "response 200"]


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
    for number, (port, kind) in enumerate(kinds):
        which = {"port": port, "start_ns": START_NS + number}
        queues.append(
            {
                "allowed": exchange(**which),
                "denied": [denied(**which)],
                "failed": [entry(code=503, **which)],
                "dead": [entry(ended=False, **which), entry(code=0, **which)],
            }[kind]
        )
    mixed = []
    while any(queues):
        queue = random.choice([queue for queue in queues if queue])  # type: ignore[attr-defined]
        mixed.append(queue.pop(0))
    pairing = Pairing()
    said = told(pairing, *mixed)
    requests = [word for word in said if not word.startswith("response")]
    assert len(requests) == len(kinds)
    assert said.count("dropped") == sum(kind == "denied" for _, kind in kinds)
    assert len(pairing) == 0

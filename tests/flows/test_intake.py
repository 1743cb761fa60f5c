"""What arrives waits until somebody reads, and nothing that a reader could see is lost by that."""

from __future__ import annotations

from flow import flow_pb2
from hypothesis import given
from hypothesis import strategies as st

from flows.ring import Ring
from tests.flows.make import Clock, denied, drop, exchange, flows_in, intake, message, refused


def test_nothing_is_built_before_somebody_reads() -> None:
    made = intake(reading=False)
    made.access_log(message(*exchange()))
    assert len(made.ring) == 0
    assert made.build() is False
    assert len(made.ring) == 2


def test_times_are_those_of_arrival_unique_and_increasing() -> None:
    clock = Clock()
    made = intake(reading=False, clock=clock)
    made.access_log(message(*exchange(), *exchange()))
    arrived = clock.ns
    clock.ns += 10
    made.packets([drop()])
    clock.ns -= 5_000  # a clock that was set back
    made.packets([drop(), drop()])
    made.build()
    times = [flow.time.ToNanoseconds() for flow in flows_in(made.ring)]
    assert times[:5] == [arrived, arrived + 1, arrived + 2, arrived + 3, arrived + 10]
    assert times == sorted(set(times))


def test_losses_keep_their_place() -> None:
    made = intake()
    made.packets([drop()])
    made.lost(7)
    made.packets([drop()])
    assert [made.ring[at].is_loss for at in range(3)] == [False, True, False]
    assert made.ring[1].loss() == flow_pb2.LostEvent(source=flow_pb2.PERF_EVENT_RING_BUFFER, num_events_lost=7)
    assert made.ring.flows_seen == 2


def test_what_is_malformed_is_counted_and_the_rest_is_shown() -> None:
    made = intake()
    made.access_log(b"\xff\xff")
    made.access_log(message(*exchange(slot=None), *exchange()))
    assert made.malformed == 3
    assert "deflector.slot" in made.complaint
    assert len(made.ring) == 2


def test_building_can_be_done_in_slices() -> None:
    made = intake(reading=False)
    for _ in range(10):
        made.access_log(message(*exchange()))
    assert made.build(5) is True
    assert len(made.ring) == 6
    while made.build(5):
        pass
    assert len(made.ring) == 20


BATCHES = st.lists(st.sampled_from(("allowed", "denied", "drops")), max_size=40)


def test_a_refused_tls_connection_is_a_drop_with_the_name_of_its_server() -> None:
    for reading in (True, False):
        made = intake(reading=reading)
        made.access_log(refused("www.evil.org"))
        made.access_log(refused())
        made.build()
        named, nameless = flows_in(made.ring)
        assert (named.verdict, named.drop_reason, named.event_type.type) == (flow_pb2.DROPPED, 133, 1)
        assert (named.Type, named.traffic_direction) == (flow_pb2.L3_L4, flow_pb2.EGRESS)
        assert (named.Summary, list(named.destination_names)) == ("TLS server name www.evil.org", ["www.evil.org"])
        assert (named.IP.destination, named.l4.TCP.destination_port) == ("192.0.2.7", 443)
        assert (nameless.Summary, list(nameless.destination_names)) == ("no TLS server name", [])


def test_a_refused_tls_connection_that_nobody_read_in_time_is_kept_as_a_denial() -> None:
    made = intake(reading=False, capacity=7)
    made.access_log(refused("www.evil.org"))
    for _ in range(10):
        made.access_log(message(*exchange()))
    made.build()
    kept = [found.flow().Summary for _, found in made.ring.denials.between(0, made.ring.start)]
    assert "TLS server name www.evil.org" in kept


@given(BATCHES, st.sampled_from((1, 3, 7, 15)))
def test_waiting_changes_nothing_that_a_reader_sees(kinds: list[str], capacity: int) -> None:
    """Built at once or built late: the ring ends up with the same flows, and has counted the same."""
    eager, late = (intake(capacity=capacity, reading=reading, clock=Clock()) for reading in (True, False))
    for made in (eager, late):
        for kind in kinds:
            if kind == "drops":
                made.packets([drop(), drop()])
            else:
                made.access_log(message(*(exchange() if kind == "allowed" else [denied(), denied()])))
        made.build()
    assert summaries(eager.ring) == summaries(late.ring)
    assert eager.ring.flows_seen == late.ring.flows_seen
    assert eager.ring.end == late.ring.end


def summaries(ring: Ring) -> list[str]:
    return [flow.Summary for flow in flows_in(ring)]

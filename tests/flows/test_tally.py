"""What is counted as it arrives: each request once, by the leaf that decided, read or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from envoy.data.accesslog.v3.accesslog_pb2 import HTTPAccessLogEntry
from seen import seen_pb2

from flows.accesslog.decode import decode_entry
from flows.intake import Packed
from flows.lookups import Lookups
from flows.record import DnsAnswer, PacketKind, PacketRecord, Parsed
from flows.tally import JOINED_PREFIX, SINGLES_MAX, Count, Tally, Use
from tests.flows.make import SLOT, Galaxy, denied, drop, entry, exchange, intake, message, seen
from tests.flows.test_parsed import PRODUCE, QUERY
from xds import denial

RULE = "rule:a3f3de1c2786"


@dataclass
class Ledger:
    """Remembers what it is told."""

    told: list[tuple[Lookups, dict[Use, int]]] = field(default_factory=list)
    packets_told: int = 0
    parsed_told: list[tuple[Parsed, int]] = field(default_factory=list)

    def requests(self, view: Lookups, uses: Sequence[tuple[Use, Count]]) -> None:
        self.told.append((view, {use: count.number for use, count in uses}))

    def packets(self, view: Lookups, records: Sequence[PacketRecord], now_ns: int) -> None:
        self.packets_told += len(records)

    def parsed(self, view: Lookups, uses: Sequence[tuple[Parsed, int]], now_ns: int) -> None:
        self.parsed_told += uses

    @property
    def uses(self) -> dict[Use, int]:
        found: dict[Use, int] = {}
        for _, uses in self.told:
            for use, number in uses.items():
                found[use] = found.get(use, 0) + number
        return found


def by(leaf: str, made: HTTPAccessLogEntry) -> HTTPAccessLogEntry:
    made.common_properties.metadata.filter_metadata[denial.METADATA_NAMESPACE][denial.METADATA_POLICY] = leaf
    return made


def counted(*entries: HTTPAccessLogEntry) -> dict[Use, int]:
    ledger, view = Ledger(), Galaxy()
    tally = Tally(ledger)
    for made in entries:
        tally.entries(view, [seen_pb2.Entry.FromString(made.SerializeToString())], 7)
    tally.settle()
    return ledger.uses


def test_requests_are_counted_by_their_leaf() -> None:
    assert counted(*(by(RULE, entry(port=port)) for port in range(1, 8))) == {Use(SLOT, False, RULE): 7}


def test_a_request_that_lasts_is_counted_when_it_ends() -> None:
    opened, ended = exchange()
    assert counted(by(RULE, opened)) == {}
    assert counted(by(RULE, opened), by(RULE, ended)) == {Use(SLOT, False, RULE): 1}


def test_denials_are_told_apart_by_what_was_asked_for() -> None:
    put, get = by("deny", denied(request="PUT /a?x=1")), by("deny", denied(request="GET /a"))
    assert counted(put, put, get) == {
        Use(SLOT, True, "deny", "PUT", "deathstar", "/a?x=1"): 2,
        Use(SLOT, True, "deny", "GET", "deathstar", "/a"): 1,
    }


def test_so_are_requests_that_a_leaf_of_many_rules_let_pass() -> None:
    leaf = f"{JOINED_PREFIX}0123456789ab"
    found = counted(by(leaf, entry(request="GET /a")), by(leaf, entry(request="GET /b")))
    assert sorted(use.path for use in found) == ["/a", "/b"]


def test_a_flood_of_different_requests_is_counted_by_slot() -> None:
    flood = [by("deny", denied(request=f"GET /{number}")) for number in range(SINGLES_MAX + 5)]
    found = counted(*flood)
    assert found.pop(Use(SLOT, True, "deny", is_told=False)) == 5
    assert sum(found.values()) == SINGLES_MAX


def test_what_was_never_judged_is_not_counted() -> None:
    malformed = entry(code=400, details="http1.codec_error", routed=False)
    malformed.common_properties.ClearField("metadata")
    assert counted(malformed) == {}


def test_a_new_view_settles_what_was_counted_under_the_old() -> None:
    ledger, before, after = Ledger(), Galaxy(), Galaxy(node_name="n2")
    tally = Tally(ledger)
    made = [seen_pb2.Entry.FromString(by(RULE, entry()).SerializeToString())]
    tally.entries(before, made, 7)
    tally.entries(after, made, 8)
    assert [view for view, _ in ledger.told] == [before]
    tally.settle()
    assert [view for view, _ in ledger.told] == [before, after]
    tally.settle()
    assert len(ledger.told) == 2


def test_what_has_been_decoded_is_counted_alike() -> None:
    joined = f"{JOINED_PREFIX}0123456789ab"
    many = [
        *(by(RULE, entry(port=port)) for port in (1, 2)),
        *(by("deny", denied("deny", request=f"GET /{number}")) for number in range(3)),
        by(joined, entry(request="GET /a")),
        *(by(RULE, made) for made in exchange()),
    ]
    ledger, view = Ledger(), Galaxy()
    tally = Tally(ledger)
    records = [record for made in many if (record := decode_entry(seen(made))) is not None]
    tally.records(view, records, 7)
    tally.settle()
    assert ledger.uses == counted(*many)


@pytest.mark.parametrize("reading", [True, False])
def test_each_request_is_counted_once_whether_or_not_it_is_read(reading: bool) -> None:
    ledger = Ledger()
    taker = intake(Galaxy())
    taker.reading = reading
    taker.tally = Tally(ledger)
    many: list[Any] = [by(RULE, entry(port=port)) for port in range(1, 3001)]
    for at in range(0, len(many), 100):
        taker.access_log(message(*many[at : at + 100]))
    taker.build()
    taker.tally.settle()
    assert ledger.uses == {Use(SLOT, False, RULE): 3000}


def test_of_the_kernels_events_verdicts_are_counted() -> None:
    ledger = Ledger()
    taker = intake(Galaxy())
    taker.tally = Tally(ledger)
    taker.packets([drop(), drop(kind=PacketKind.POLICY_VERDICT)])
    assert ledger.packets_told == 1


def test_of_dns_and_kafka_requests_are_counted_and_answers_are_theirs() -> None:
    ledger = Ledger()
    taker = intake(Galaxy())
    taker.tally = Tally(ledger)
    taker.parsed([QUERY, QUERY._replace(answer=DnsAnswer()), PRODUCE, PRODUCE._replace(is_response=True)])
    assert ledger.parsed_told == [(QUERY, 1), (PRODUCE, 1)]


def test_of_packed_records_only_what_is_to_be_counted_is_unpacked() -> None:
    ledger = Ledger()
    taker = intake(Galaxy())
    taker.tally, taker.reading = Tally(ledger), False
    taker.packed(Packed(flows=4, denials=0, unpack=lambda: pytest.fail("nobody reads"), uses=lambda: [(QUERY, 2)]))
    assert ledger.parsed_told == [(QUERY, 2)]


def test_leaves_of_many_rules_are_known_by_the_name_that_the_tree_gives_them() -> None:
    assert JOINED_PREFIX == denial.JOINED_PREFIX


def test_events_of_the_kernel_settle_nothing_under_the_same_view() -> None:
    ledger, view = Ledger(), Galaxy()
    tally = Tally(ledger)
    tally.entries(view, [seen(by(RULE, entry()))], 7)
    tally.packets(view, [drop(kind=PacketKind.POLICY_VERDICT)], 8)
    assert (ledger.told, ledger.packets_told) == ([], 1)
    tally.packets(Galaxy(node_name="n2"), [drop(kind=PacketKind.POLICY_VERDICT)], 9)
    assert [told for told, _ in ledger.told] == [view]

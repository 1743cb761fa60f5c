"""What our own proxies tell the agent: over a real socket, while the agent is away, and beyond every bound."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from agent.proxies import dns_flows
from agent.proxies.inside.dns_reports import DnsReports
from agent.proxies.inside.outbox import FLOWS_MAX, Outbox
from agent.proxies.inside.report_stream import ReportStream
from agent.proxies.inside.telling import denials_of
from agent.proxies.reports import Answer, Reports
from flows.intake import Packed
from flows.record import DnsRecord, Judgement, Parsed, ParserVerdict
from l7proxy.dns.answers import Gist, Learned
from l7proxy.dns.judge import Decision, Reason
from l7proxy.dns.lessons import LESSONS_MAX, SLACK
from l7proxy.dns.records import AccessRecord
from policies.ir import DnsRule, FqdnSelector
from policies.types import Protocol
from tests.l7proxy.dns.make import ORIGIN, POD, SERVER, client, question, slot
from xds.protos.deflector.l7.v1 import reports_pb2 as pb

BOUND = 10.0
ADDRESS = bytes((192, 0, 2, 7))
NAME = "www.example.org."
RULE = DnsRule(NAME, origins=(ORIGIN,))
ALLOWED, DENIED = Decision(None, slot(), RULE), Decision(Reason.NAME_DENIED, slot())
ASKED = AccessRecord(client(), ALLOWED, (question(NAME),), False)
ANSWER = ASKED._replace(is_response=True, gist=Gist((), (ADDRESS,), (), 30), rrtypes=(1,))
REFUSED = ASKED._replace(decision=DENIED, reason=Reason.NAME_DENIED)


def learned(name: str = NAME, ttl: int = 30) -> Learned:
    return Learned(name, (ADDRESS,), ttl)


@dataclass
class Agent:
    """Takes what is told; answers lessons when it is told to."""

    seen: list[Parsed] = field(default_factory=list)
    used: list[tuple[Parsed, int]] = field(default_factory=list)
    told: list[tuple[pb.Learned, Answer]] = field(default_factory=list)
    starting: bool = False
    reports: Reports = field(init=False)

    def __post_init__(self) -> None:
        self.reports = Reports(self, self.learn)
        if not self.starting:
            self.reports.open()

    def packed(self, packed: Packed) -> None:
        records = packed.unpack()
        assert len(records) == packed.flows
        assert sum(one.is_denial for one in records) == packed.denials
        self.seen += records
        self.used += packed.uses()

    def learn(self, lessons: Iterable[pb.Learned], answer: Answer) -> None:
        self.told += [(one, answer) for one in lessons]

    @asynccontextmanager
    async def listening(self, folder: Path) -> AsyncIterator[None]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self.reports.handler(),))
        server.add_insecure_port(f"unix://{folder / 'xds.sock'}")
        await server.start()
        try:
            yield
        finally:
            await server.stop(None)


@asynccontextmanager
async def telling(folder: Path) -> AsyncIterator[DnsReports]:
    stream: list[ReportStream] = []
    made = DnsReports(lambda urgent: stream[0].wake(urgent=urgent))
    made.select((FqdnSelector(NAME),), targets=False)
    stream.append(ReportStream(folder / "xds.sock", "dns-proxy", made))
    async with asyncio.TaskGroup() as group:
        task = group.create_task(stream[0].run())
        yield made
        task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_is_seen_becomes_records(tmp_path: Path) -> None:
    agent = Agent()
    async with agent.listening(tmp_path), telling(tmp_path) as reports:
        for record in (ASKED, ANSWER, REFUSED):
            reports.seen(record)
        await until(lambda: len(agent.seen) == 3)
    asked, answer, refused = agent.seen
    assert isinstance(asked, DnsRecord)
    assert isinstance(answer, DnsRecord)
    assert isinstance(refused, DnsRecord)
    leg = asked.leg
    assert (leg.slot.name, leg.slot.group, leg.transport) == (slot().name, 4711, Protocol.UDP)
    assert (leg.client_ip, leg.client_port, leg.server_ip, leg.server_port) == (POD, 40000, SERVER, 53)
    assert (asked.query, asked.types, asked.answer) == (NAME, ("A",), None)
    assert asked.judgement == answer.judgement == Judgement((ORIGIN,))
    assert answer.answer is not None
    assert (answer.answer.addresses, answer.answer.ttl, answer.answer.types) == (("192.0.2.7",), 30, ("A",))
    assert (refused.verdict, refused.judgement) == (ParserVerdict.DROPPED, Judgement())
    assert agent.used == [(asked, 1), (refused, 1)]


@pytest.mark.parametrize("reason", Reason)
async def test_why_a_query_came_to_nothing_is_told(reason: Reason) -> None:
    reports = DnsReports(lambda urgent: None)
    reports.seen(ASKED._replace(is_response=True, reason=reason))
    batch = reports.batch()
    assert batch is not None
    if reason is Reason.TIMEOUT:
        assert not batch.HasField("dns")
        assert batch.counters[reason] == 1
        return
    (record,) = dns_flows.dns_records(batch.dns.packed)
    errors = {"UNREACHABLE", "BAD_ANSWER", "FOREIGN_ANSWER", "HELD_TOO_LONG", "NOT_OPENED"}
    assert record.verdict is (ParserVerdict.ERROR if reason.name in errors else ParserVerdict.DROPPED)
    assert record.judgement.reason == ("" if reason is Reason.NAME_DENIED else reason)


async def test_requests_that_are_alike_are_counted_and_not_opened_one_by_one() -> None:
    reports = DnsReports(lambda urgent: None)
    for _ in range(100):
        reports.seen(ASKED)
        reports.seen(ANSWER)
    batch = reports.batch()
    assert batch is not None
    assert (batch.dns.flows, list(batch.dns.counts)) == (200, [100])
    assert len(dns_flows.dns_records(batch.dns.requests)) == 1


async def test_an_answer_waits_until_its_addresses_are_in_force(tmp_path: Path) -> None:
    agent = Agent()
    async with agent.listening(tmp_path), telling(tmp_path) as reports:
        await until(lambda: bool(agent.reports._streams))
        waiting, other = reports.learned(POD, (learned(),)), reports.learned(POD, (learned("other.org."),))
        assert waiting is not None
        assert other is None
        await until(lambda: len(agent.told) == 2)
        (one, answer), (mention, _) = agent.told
        assert (one.number, one.name, one.pod, list(one.addresses)) == (1, NAME, POD, [ADDRESS])
        assert (mention.number, mention.name) == (0, "other.org.")
        assert not waiting.done()
        answer([one.number], [])
        async with asyncio.timeout(BOUND):
            assert await waiting
        assert reports.learned(POD, (learned(),)) is None


async def test_addresses_that_cannot_be_are_withheld(tmp_path: Path) -> None:
    agent = Agent()
    async with agent.listening(tmp_path), telling(tmp_path) as reports:
        await until(lambda: bool(agent.reports._streams))
        both = reports.learned(POD, (learned(), learned(ttl=60)._replace(addresses=(bytes(4),))))
        assert both is not None
        await until(lambda: len(agent.told) == 2)
        agent.told[0][1]([agent.told[0][0].number], [agent.told[1][0].number])
        async with asyncio.timeout(BOUND):
            assert not await both


async def test_what_was_learned_while_the_agent_was_away_is_told_to_the_next(tmp_path: Path) -> None:
    first, second = Agent(), Agent()
    async with telling(tmp_path) as reports:
        early = reports.learned(POD, (learned(),))
        assert early is not None, "nobody is there yet"
        async with first.listening(tmp_path):
            await until(lambda: len(first.told) == 1)
            first.told[0][1]([first.told[0][0].number], [])
            async with asyncio.timeout(BOUND):
                assert await early
            unanswered = reports.learned("10.0.0.9", (Learned(NAME, (bytes(4),), 30),))
            await until(lambda: len(first.told) == 2)
        await until(lambda: reports._lessons._away_since is not None)
        assert reports.learned(POD, (learned(),)) is None, "known, and nobody is there to close it"
        reports.seen(ASKED)
        async with second.listening(tmp_path):
            await until(lambda: len(second.told) >= 1 and len(second.seen) == 1)
            assert unanswered is not None
            assert "10.0.0.9" in {one.pod for one, _ in second.told}


async def test_what_was_open_stays_known_until_the_next_agent_has_put_it_in_force(tmp_path: Path) -> None:
    """An agent that starts may be asked for long before it can answer."""
    first, second = Agent(), Agent(starting=True)
    async with telling(tmp_path) as reports:
        early = reports.learned(POD, (learned(ttl=0),))
        assert early is not None
        async with first.listening(tmp_path):
            await until(lambda: len(first.told) == 1)
            first.told[0][1]([first.told[0][0].number], [])
            async with asyncio.timeout(BOUND):
                assert await early
            lapses = time.monotonic() + 1.0 + SLACK
        await until(lambda: reports._lessons._away_since is not None)
        async with second.listening(tmp_path):
            reports.seen(ASKED)
            await until(lambda: len(second.seen) == 1)
            await until(lambda: time.monotonic() > lapses)
            assert reports.learned(POD, (learned(ttl=0),)) is None, "told, and not waited for"
            await until(lambda: len(second.told) == 1)
            second.reports.open()
            await until(lambda: reports._lessons._away_since is None)
            assert reports.learned(POD, (learned(ttl=0),)) is not None, "this one may have closed it"


async def test_counters_reach_the_agent_and_survive_the_proxy(tmp_path: Path) -> None:
    agent = Agent()
    async with agent.listening(tmp_path):
        for _ in range(2):
            async with telling(tmp_path) as reports:
                reports.counted = lambda: {"answers held to the limit": 3}
                reports.seen(ASKED)
                await until(lambda: any(counts for _, counts in agent.reports._streams.values()))
            await until(lambda: not agent.reports._streams)
    assert agent.reports.counters["dns-proxy", "answers held to the limit"] == 6


async def test_lessons_are_bounded_and_then_answers_are_withheld() -> None:
    reports = DnsReports(lambda urgent: None)
    reports.select((FqdnSelector("", "*"),), targets=False)
    for number in range(LESSONS_MAX):
        reports.learned(POD, (learned(f"n{number}."),))
    refused = reports.learned(POD, (learned("one-more."),))
    assert refused is not None
    assert not await refused


def batch_of(forwarded: int, denied: int) -> pb.Records:
    slots = [slot().name]
    one, other = pb.DnsAccess(slot=1, query=NAME), pb.DnsAccess(slot=1, query=NAME, verdict=pb.DROPPED)
    packed = pb.DnsAccesses(slots=slots, accesses=[one] * forwarded + [other] * denied).SerializeToString()
    return pb.Records(packed=packed, flows=forwarded + denied, denials=denied)


def drained(outbox: Outbox) -> Sequence[pb.Records]:
    return list(iter(outbox.take, None))


def test_of_what_does_not_fit_denials_go_last() -> None:
    outbox = Outbox(lambda packed: denials_of(packed, pb.DnsAccesses))
    size, count = 512, FLOWS_MAX // 512
    for _ in range(2 * count):
        outbox.put(batch_of(size - 8, 8))
    left = drained(outbox)
    assert sum(one.flows for one in left) <= FLOWS_MAX
    assert sum(one.denials for one in left) == 2 * count * 8, "none of them was lost"
    assert outbox.lost == 2 * count * size - sum(one.flows for one in left)
    assert all(len(dns_flows.dns_records(one.packed)) == one.flows for one in left)


def test_denials_alone_are_bounded_too() -> None:
    outbox = Outbox(lambda packed: denials_of(packed, pb.DnsAccesses))
    for _ in range(2 * FLOWS_MAX // 512):
        outbox.put(batch_of(0, 512))
    assert sum(one.flows for one in drained(outbox)) <= FLOWS_MAX
    assert outbox.lost >= FLOWS_MAX


@pytest.mark.parametrize("packed", [b"\xff", b"\x1a\x02\x08\x07", b"\x0a\x01x"])
def test_what_is_malformed_is_one_error(packed: bytes) -> None:
    with pytest.raises(ValueError, match=r"no records of the DNS proxy|not a valid Direction"):
        dns_flows.dns_records(packed)

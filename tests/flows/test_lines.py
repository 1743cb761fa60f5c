"""Every form of line that Hubble's users know, the whole way: from what was seen through ring, JSON, filters, printer
and exporter. testdata/lines holds what comes out; the stock command line prints the same of our JSON."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from flow import flow_pb2
from google.protobuf import json_format
from observer import observer_pb2

from flows.export.config import ExporterSpec, FileSpec
from flows.export.writer import Writer
from flows.jsonpb import to_json
from flows.lookups import EndpointRef, PolicyRef
from flows.observer import CLOCK
from flows.printer import Printer, Style
from flows.reader import Losses, Reader
from flows.reading import compile_request
from flows.record import DnsAnswer, DnsRecord, KafkaRecord, Leg, PacketKind, PacketVerdict, ParserVerdict, SlotRef
from flows.replay import Replay
from policies.types import Direction, Protocol
from tests.flows.make import DEATHSTAR, SERVICE, TIEFIGHTER, Galaxy, denied, drop, entry, intake, message
from tests.flows.make import Clock as StillClock

LINES = Path(__file__).parent / "testdata" / "lines"
RESOLVER, GOOGLE = "10.0.9.53", "8.8.8.8"
STYLES = {
    "compact": ([], Style()),
    "named": (["--print-node-name", "--print-policy-names"], Style(node_name=True, policy_names=True)),
    "numeric": (["--numeric"], Style(ip_translation=False)),
    "colour": (["--color", "always"], Style(colour=True)),
    "dict": (["-o", "dict"], Style("dict")),
    "table": (["-o", "table"], Style("table")),
    "json": (["-o", "json"], Style("json")),
}


def galaxy() -> Galaxy:
    home = Galaxy()
    pods = {**home.pods, RESOLVER: EndpointRef(3434, 0, "kube-system", "coredns-xyz")}
    policies = (
        PolicyRef("l7", "default", "CiliumNetworkPolicy"),
        PolicyRef("cc", "", "CiliumClusterwideNetworkPolicy"),
    )
    names = {(GOOGLE, TIEFIGHTER): ("dns.google",)}
    return Galaxy(pods, node_name="default/n1", node_labels=("zone=outer-rim",), names=names, policies=policies)


def recorded() -> list[observer_pb2.GetFlowsResponse]:
    """What a reader of the ring is sent of a day in the galaxy."""
    made = intake(galaxy())
    made.access_log(message(entry(headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}), denied(port=40001)))
    asking = Leg(SlotRef("egress:2222:udp:53", Direction.EGRESS, 2222), TIEFIGHTER, 45678, RESOLVER, 53, Protocol.UDP)
    query = DnsRecord(asking, "example.com.", ("A",))
    answer = DnsAnswer(0, ("1.2.3.4",), ("a.example.",), 30, ("CNAME", "A"))
    producing = Leg(SlotRef("ingress:4711:tcp:9092", Direction.INGRESS, 4711), TIEFIGHTER, 40000, DEATHSTAR, 9092)
    produce = KafkaRecord(producing, "produce", 3, 2, ("empire",), verdict=ParserVerdict.DROPPED)
    made.parsed([query, query._replace(answer=answer), produce])
    verdict = {"kind": PacketKind.POLICY_VERDICT, "source_ip": TIEFIGHTER, "match_type": 2}
    trace = {"kind": PacketKind.TRACE, "verdict": PacketVerdict.FORWARDED, "drop_reason": 0}
    made.packets(
        [
            drop(source_ip=TIEFIGHTER, destination_ip=GOOGLE, destination_port=443, direction=Direction.EGRESS),
            drop(**verdict, drop_reason=181),
            drop(**verdict, verdict=PacketVerdict.REDIRECTED, drop_reason=0, proxy_port=14000),
            drop(
                **trace,
                source_ip="fd00::1",
                destination_ip="fd00::2",
                source_identity=1,
                destination_identity=16777217,
                observation_point=1,
                trace_reason=2,
                tcp_flags=0x18,
            ),
            drop(
                **trace,
                source_ip=SERVICE,
                source_port=80,
                source_identity=6,
                destination_ip=TIEFIGHTER,
                trace_reason=3,
                tcp_flags=0x12,
            ),
            drop(**trace, protocol=Protocol.ICMP, icmp_type=8, source_port=0, destination_port=0, trace_reason=1),
        ]
    )
    made.lost(7)
    reader = Reader(made.ring, compile_request(observer_pb2.GetFlowsRequest()), "default/n1", CLOCK)
    responses: list[bytes] = []
    while not reader.is_done:
        responses += reader.piece(1.0)
    slow = Losses("default/n1", replace(CLOCK, unix_ns=StillClock()))
    slow.add(7)
    responses.append(slow.due(now=True) or b"")
    return [observer_pb2.GetFlowsResponse.FromString(one) for one in responses]


def as_json() -> str:
    return "".join(to_json(response) + "\n" for response in recorded())


def replayed(request: observer_pb2.GetFlowsRequest, style: Style) -> str:
    """Our own reading and printing of our own lines."""
    replay, printer = Replay(request), Printer(style)
    lines = (LINES / "flows.jsonl").read_text(encoding="utf-8").splitlines()
    found = [response for line in lines if (response := replay.feed(line)) is not None]
    return "".join(map(printer.text, found)) + printer.close()


def test_what_readers_are_sent(golden: Callable[[Path, str], None]) -> None:
    golden(LINES / "flows.jsonl", as_json())


def test_nothing_is_lost_in_json() -> None:
    lines = as_json().splitlines()
    assert [json_format.Parse(line, observer_pb2.GetFlowsResponse()) for line in lines] == recorded()


@pytest.mark.parametrize("name", STYLES)
def test_printed(name: str, golden: Callable[[Path, str], None]) -> None:
    golden(LINES / f"{name}.txt", replayed(observer_pb2.GetFlowsRequest(), STYLES[name][1]))


def test_filtered(golden: Callable[[Path, str], None]) -> None:
    dropped = observer_pb2.GetFlowsRequest(whitelist=[{"verdict": [flow_pb2.DROPPED]}])
    golden(LINES / "dropped.txt", replayed(dropped, Style()))
    other = observer_pb2.GetFlowsRequest(
        whitelist=[{"event_type": [{"type": 129}]}], blacklist=[{"protocol": ["http"]}]
    )
    golden(LINES / "l7-not-http.txt", replayed(other, Style()))


class Tape:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def write(self, lines: Sequence[bytes]) -> None:
        self.lines += lines

    def close(self) -> None:
        pass


def test_exported() -> None:
    """An exporter writes the same lines: an event is told in the same fields as a response."""
    tape = Tape()
    writer = Writer(ExporterSpec("test", FileSpec("nowhere")), lambda text: None, open_sink=lambda: tape)
    writer.start()
    writer.offer([response.SerializeToString() for response in recorded()])
    writer.stop()
    written = b"".join(tape.lines).decode()
    assert written == (LINES / "flows.jsonl").read_text(encoding="utf-8")


STOCK = [*((name, words) for name, (words, _) in STYLES.items()), ("dropped", ["--verdict", "DROPPED"])]


@pytest.mark.skipif("HUBBLE_CLI" not in os.environ, reason="needs the stock command line: HUBBLE_CLI=path")
@pytest.mark.parametrize(("name", "words"), [*STOCK, ("l7-not-http", ["--type", "l7", "--not", "--protocol", "http"])])
async def test_the_stock_command_line_prints_the_same(name: str, words: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *(os.environ["HUBBLE_CLI"], "observe", "--input-file", str(LINES / "flows.jsonl"), *words),
        stdout=asyncio.subprocess.PIPE,
        env={"HOME": "/nonexistent"},
    )
    async with asyncio.timeout(20):
        out, _ = await process.communicate()
    assert out.decode() == (LINES / f"{name}.txt").read_text(encoding="utf-8")

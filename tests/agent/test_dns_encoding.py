"""What is written by hand is what the library would have written: each field, and none that was not meant."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.proxies.inside.dns_encoding import answered, asked, common, refused
from agent.proxies.inside.wire_format import varint
from l7proxy.dns.answers import Gist
from l7proxy.dns.transactions import Client
from l7proxy.dns.wire import Question
from policies.types import Protocol
from xds.protos.deflector.l7.v1 import reports_pb2 as pb

numbers = st.integers(0, 2**32 - 1)
ports = st.integers(1, 65535)
texts = st.text(st.characters(codec="utf-8"), max_size=300)
addresses = st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)
types = st.lists(st.integers(0, 65535), max_size=4).map(tuple)
clients = st.builds(
    Client, st.sampled_from([Protocol.UDP, Protocol.TCP]), ports, texts.filter(bool), ports, texts.filter(bool), ports
)


@given(clients, numbers, numbers, texts, types, st.sampled_from([0, 1, 2]), texts)
def test_a_query(
    client: Client, slot: int, rule: int, name: str, qtypes: tuple[int, ...], verdict: int, reason: str
) -> None:
    questions = tuple(Question(name, qtype, 1) for qtype in qtypes)
    read = pb.DnsAccess.FromString(common(slot, rule, client) + asked(client, questions) + refused(verdict, reason))
    assert read == pb.DnsAccess(
        slot=slot,
        client=client.pod,
        client_port=client.pod_port,
        server=client.server,
        server_port=client.server_port,
        tcp=client.protocol is Protocol.TCP,
        query=name if questions else "",
        types=qtypes,
        verdict=verdict,
        rule=rule,
        reason=reason,
    )


@given(st.integers(0, 4095), st.lists(addresses, max_size=20), st.lists(texts, max_size=4), numbers, types)
def test_an_answer(rcode: int, found: list[bytes], cnames: list[str], ttl: int, rrtypes: tuple[int, ...]) -> None:
    read = pb.DnsAccess.FromString(answered(rcode, Gist((), tuple(found), tuple(cnames), ttl), rrtypes))
    answer = pb.DnsAnswer(rcode=rcode, addresses=found, cnames=cnames, ttl=ttl, types=rrtypes)
    assert read.HasField("answer")
    assert read == pb.DnsAccess(answer=answer)


@given(st.integers(0, 2**64 - 1))
def test_numbers(number: int) -> None:
    assert pb.Learned.FromString(b"\x08" + varint(number)).number == number

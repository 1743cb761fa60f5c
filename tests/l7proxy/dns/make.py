"""Makers of DNS messages and of what the proxy's parts talk in."""

from __future__ import annotations

import dns.message
import dns.name
import dns.rrset
from hypothesis import strategies as st

from l7proxy.dns.transactions import Client
from l7proxy.dns.wire import Question
from policies.ir import DnsRule, L7Parser, RuleSet, Slot, SlotState
from policies.types import Direction, Origin, PortRange, Protocol

NO_RULES = RuleSet()
POD, SERVER = "10.0.0.2", "10.96.0.10"


def client(pod: str = POD, port: int = 40000, protocol: Protocol = Protocol.UDP, number: int = 0) -> Client:
    return Client(protocol, 15353, pod, port, SERVER, 53, number, number)


def query(name: str, rdtype: str = "A", **more: object) -> bytes:
    return dns.message.make_query(name, rdtype, **more).to_wire()  # type: ignore[arg-type]


def answer(asked: bytes, *records: str, rcode: int = 0) -> bytes:
    """An answer to the message, with records as in a zone file: "name ttl IN type content"."""
    reply = dns.message.make_response(dns.message.from_wire(asked))
    reply.set_rcode(rcode)  # type: ignore[arg-type]
    for record in records:
        owner, ttl, rdclass, rdtype, content = record.split(" ", 4)
        reply.answer.append(dns.rrset.from_text(owner, int(ttl), rdclass, rdtype, content))
    return reply.to_wire()


ORIGIN = Origin("CiliumNetworkPolicy", "default", "dns", "spec.egress[0].toPorts[0].rules.dns[0]")


def allowing(*rules: DnsRule, wildcard: bool = False) -> RuleSet:
    return RuleSet(dns=rules, wildcard=(ORIGIN,) if wildcard else ())


def slot(
    name: str = "",
    protocol: Protocol = Protocol.UDP,
    rules: RuleSet = NO_RULES,
    state: SlotState = SlotState.ACTIVE,
) -> Slot:
    name = name or f"egress:4711:{protocol.name.lower()}:53"
    return Slot(name, Direction.EGRESS, 4711, protocol, PortRange(53, 53), rules, state, L7Parser.DNS)


def question(name: str, qtype: int = 1) -> Question:
    return Question(name, qtype, 1)


# Labels of any bytes, and such as hosts have.
any_label = st.binary(min_size=1, max_size=63)
host_label = st.text("abcxyzABCXYZ019-_", min_size=1, max_size=12)


@st.composite
def names(draw: st.DrawFn, label: st.SearchStrategy[bytes] = any_label) -> dns.name.Name:
    labels = draw(st.lists(label, max_size=6))
    while sum(map(len, labels)) + len(labels) > 254:
        labels.pop()
    return dns.name.Name([*labels, b""])

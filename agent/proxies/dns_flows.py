"""Records of the DNS proxy, as flows knows them. Pure, but for the form of addresses."""

from __future__ import annotations

import socket
from functools import lru_cache
from typing import Final

from google.protobuf.message import DecodeError

from flows.record import DnsAnswer, DnsRecord, Judgement, Leg, ParserVerdict, SlotRef
from policies.types import Direction, Protocol
from xds.l7 import read_origins
from xds.protos.deflector.l7.v1 import reports_pb2 as pb

NO_SLOT: Final = SlotRef("", Direction.EGRESS, 0)
_CACHED: Final = 4096
VERDICTS: Final = {
    pb.FORWARDED: ParserVerdict.FORWARDED,
    pb.DROPPED: ParserVerdict.DROPPED,
    pb.ERROR: ParserVerdict.ERROR,
}
# As Hubble writes them, which knows no others (gopacket's layers.DNSType).
_TYPES: Final = {
    1: "A", 2: "NS", 3: "MD", 4: "MF", 5: "CNAME", 6: "SOA", 7: "MB", 8: "MG", 9: "MR", 10: "NULL", 11: "WKS",
    12: "PTR", 13: "HINFO", 14: "MINFO", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV", 41: "OPT", 256: "URI",
}  # fmt: skip


def dns_records(packed: bytes) -> list[DnsRecord]:
    """Of DnsAccesses; ValueError for anything else."""
    try:
        accesses = pb.DnsAccesses.FromString(packed)
        slots = [NO_SLOT, *map(slot_ref, accesses.slots)]
        rules = [Judgement(), *(Judgement(read_origins(rule.origins)) for rule in accesses.rules)]
        return [_record(one, slots[one.slot], rules[one.rule]) for one in accesses.accesses]
    except (DecodeError, IndexError, KeyError, OSError) as error:
        raise ValueError(f"no records of the DNS proxy: {error}") from None


@lru_cache(_CACHED)
def slot_ref(name: str) -> SlotRef:
    """What the name of a slot says: egress:4711:udp:53."""
    direction, _, rest = name.partition(":")
    return SlotRef(name, Direction(direction), int(rest.partition(":")[0]))


def _record(one: pb.DnsAccess, slot: SlotRef, judgement: Judgement) -> DnsRecord:
    transport = Protocol.TCP if one.tcp else Protocol.UDP
    return DnsRecord(
        Leg(slot, one.client, one.client_port, one.server, one.server_port, transport),
        one.query,
        tuple([_TYPES.get(number, "Unknown") for number in one.types]),
        _answer(one.answer) if one.HasField("answer") else None,
        VERDICTS[one.verdict],
        judgement=judgement._replace(reason=one.reason) if one.reason else judgement,
    )


def _answer(one: pb.DnsAnswer) -> DnsAnswer:
    return DnsAnswer(
        one.rcode,
        tuple(map(_text, one.addresses)),
        tuple(one.cnames),
        one.ttl,
        tuple([_TYPES.get(number, "Unknown") for number in one.types]),
    )


@lru_cache(_CACHED)
def _text(address: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(address) == 4 else socket.AF_INET6, address)

"""Records of the Kafka proxy, as flows knows them. Pure."""

from __future__ import annotations

from google.protobuf.message import DecodeError

from agent.proxies.dns_flows import NO_SLOT, VERDICTS, slot_ref
from flows.record import Judgement, KafkaRecord, Leg, SlotRef
from policies.kafka_keys import name_of
from xds.l7 import read_origins
from xds.protos.deflector.l7.v1 import reports_pb2 as pb


def kafka_records(packed: bytes) -> list[KafkaRecord]:
    """Of KafkaAccesses; ValueError for anything else."""
    try:
        accesses = pb.KafkaAccesses.FromString(packed)
        slots = [NO_SLOT, *map(slot_ref, accesses.slots)]
        rules = [Judgement(), *(Judgement(read_origins(rule.origins)) for rule in accesses.rules)]
        return [_record(one, slots[one.slot], rules[one.rule]) for one in accesses.accesses]
    except (DecodeError, IndexError, KeyError) as error:
        raise ValueError(f"no records of the Kafka proxy: {error}") from None


def _record(one: pb.KafkaAccess, slot: SlotRef, judgement: Judgement) -> KafkaRecord:
    return KafkaRecord(
        Leg(slot, one.client, one.client_port, one.server, one.server_port),
        name_of(one.api_key) if one.api_key >= 0 else "",
        one.api_version,
        one.correlation_id,
        (one.topic,) if one.topic else (),
        error_code=one.error_code,
        verdict=VERDICTS[one.verdict],
        judgement=judgement._replace(reason=one.reason) if one.reason else judgement,
        client_id=one.client_id,
    )

"""What flows show of DNS and Kafka: the layer 7 of each flow that a record becomes, and its summary. Pure."""

from __future__ import annotations

from typing import NamedTuple

from flow import flow_pb2

from flows.record import DnsRecord, KafkaRecord, Parsed
from flows.summary import dns_summary, kafka_summary


class Layer(NamedTuple):
    """The special part of one flow."""

    l7: flow_pb2.Layer7
    summary: str
    is_response: bool


def layers(record: Parsed) -> list[Layer]:
    """One of a DNS message; of a Kafka request one for each topic, at least one."""
    if isinstance(record, DnsRecord):
        return [_dns(record)]
    return [_kafka(record, topic) for topic in record.topics or ("",)]


def count(record: Parsed) -> int:
    """How many flows it becomes."""
    return max(1, len(record.topics)) if isinstance(record, KafkaRecord) else 1


def _dns(record: DnsRecord) -> Layer:
    dns = flow_pb2.DNS(query=record.query, observation_source=record.source, qtypes=record.types)
    if (answer := record.answer) is not None:
        dns.ips.extend(answer.addresses)
        dns.cnames.extend(answer.cnames)
        dns.rrtypes.extend(answer.types)
        dns.ttl, dns.rcode = answer.ttl, answer.rcode
    kind = flow_pb2.REQUEST if answer is None else flow_pb2.RESPONSE
    return Layer(flow_pb2.Layer7(type=kind, dns=dns), dns_summary(record), answer is not None)


def _kafka(record: KafkaRecord, topic: str) -> Layer:
    kafka = flow_pb2.Kafka(
        error_code=record.error_code if record.is_response else 0,
        api_version=record.api_version,
        api_key=record.api_key,
        correlation_id=record.correlation_id,
        topic=topic,
    )
    kind = flow_pb2.RESPONSE if record.is_response else flow_pb2.REQUEST
    return Layer(flow_pb2.Layer7(type=kind, kafka=kafka), kafka_summary(record, topic), record.is_response)

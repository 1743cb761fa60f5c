"""The strict parse of questions to nameservers: plain YAML data to conformance.question values. Pure.

A question in which one of VARIED is a list stands for every combination.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from conformance.errors import SuiteError
from conformance.fields import Fields
from conformance.parse_probe import parse_flow, parse_target
from conformance.question import QTYPES, TRANSPORTS, Client, Question, Resolution
from conformance.scenario import FAMILIES

VARIED = ("from", "to", "ip", "name", "type", "over", "client")  # a list: one question per entry
DNS_PORT = 53


def parse_questions(value: Any, path: str) -> Iterator[Question]:
    """The questions that one entry stands for. Raises SuiteError."""
    entry = Fields.of(value, path).value
    varied = [name for name in VARIED if isinstance(entry.get(name), list)]
    for choice in itertools.product(*(entry[name] for name in varied)):
        yield _question(Fields({"port": DNS_PORT, **entry, **dict(zip(varied, choice, strict=True))}, path))


def _question(fields: Fields) -> Question:
    over = fields.choice("over", TRANSPORTS, "udp")
    question = Question(
        source=fields.take("from", str),
        server=parse_target(fields),
        name=fields.take("name", str),
        expect=Resolution(fields.choice("expect", tuple(Resolution))),
        client=Client(fields.choice("client", tuple(Client), Client.DIG.value)),
        qtype=fields.choice("type", QTYPES, "A"),
        over=over,
        arrives_by=fields.choice("arrives_by", TRANSPORTS, over),
        family=fields.choice("ip", FAMILIES, 4),
        rcode=fields.take("rcode", str, "NOERROR"),
        addresses=fields.names("addresses", []),
        has=fields.names("has", []),
        by=fields.take("by", str, ""),
        dnssec=fields.take("dnssec", bool, False),
        flows=tuple(parse_flow(f, f"{fields.path}.flows[{n}]") for n, f in enumerate(fields.take("flows", list, []))),
        unwatched=fields.take("unwatched", bool, False),
    )
    fields.done()
    if question.client is not Client.DIG and (question.over != "udp" or question.dnssec):
        raise SuiteError(fields.path, "only dig can be told its transport, or to ask for DNSSEC")
    return question

"""The strict parse of probes: plain YAML data to conformance.scenario values. Pure.

A probe in which one of VARIED is a list stands for every combination. Where no request is named it is PLAIN_REQUEST.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from conformance.errors import SuiteError
from conformance.fields import Fields
from conformance.flow_view import FLOW_FIELDS
from conformance.scenario import (
    EGRESS,
    FAMILIES,
    HTTP_VERSIONS,
    INGRESS,
    PROTOCOLS,
    WEBSOCKET,
    Outcome,
    Probe,
    Request,
)
from conformance.target import NAMED_KINDS, TARGET_KINDS, Target

VARIED = ("from", "to", "port", "ip", "http", "protocol", "icmp_type", "host", "request")  # a list: one probe per entry
PLAIN_REQUEST = "GET /v1/"  # where only the verdict matters


def parse_probes(value: Any, path: str) -> Iterator[Probe]:
    """The probes that one entry stands for. Raises SuiteError."""
    entry = Fields.of(value, path).value
    varied = [name for name in VARIED if isinstance(entry.get(name), list)]
    for choice in itertools.product(*(entry[name] for name in varied)):
        yield _probe(Fields({**entry, **dict(zip(varied, choice, strict=True))}, path))


def _probe(fields: Fields) -> Probe:
    protocol = fields.choice("protocol", tuple(PROTOCOLS), "tcp")
    request = parse_request(fields.take("request", str, PLAIN_REQUEST), fields) if protocol == "tcp" else None
    upgrades = request is not None and request.http == WEBSOCKET
    probe = Probe(
        source=fields.take("from", str),
        target=parse_target(fields, protocol),
        expect=Outcome(fields.choice("expect", tuple(Outcome))),
        request=request,
        protocol=protocol,
        family=fields.choice("ip", FAMILIES, 4),
        status=fields.take("status", int, 101 if upgrades else 200),
        at=fields.names("at", [INGRESS]),
        judged=fields.take("judged", str, ""),
        drop_reason=fields.take("drop_reason", str, "POLICY_DENIED"),
        body_has=fields.names("body_has", []),
        body_lacks=fields.names("body_lacks", []),
        over=fields.take("over", str, ""),
        by=fields.take("by", str, ""),
        icmp_type=fields.take("icmp_type", int, -1) if protocol == "icmp" else -1,
        flows=tuple(
            parse_flow(flow, f"{fields.path}.flows[{n}]") for n, flow in enumerate(fields.take("flows", list, []))
        ),
    )
    if not probe.at or any(direction not in (INGRESS, EGRESS) for direction in probe.at):
        raise SuiteError(f"{fields.path}.at", f"must name {INGRESS} or {EGRESS}")
    fields.done()
    return probe


def parse_request(line: str, fields: Fields) -> Request:
    """`METHOD /path` and the fields that belong to it. Raises SuiteError."""
    method, space, path = line.partition(" ")
    if not space or not method or not path.startswith("/"):
        raise SuiteError(f"{fields.path}.request", f"{line!r} is not METHOD /path")
    headers = Fields.of(fields.take("headers", dict, {}), f"{fields.path}.headers").value
    return Request(
        method=method,
        path=path,
        http=fields.choice("http", HTTP_VERSIONS, "1.1"),
        host=fields.take("host", str, ""),
        headers=tuple((name, str(text)) for name, text in headers.items()),
        body=fields.take("body", str) if "body" in fields.value else None,
        chunked=fields.take("chunked", bool, False),
        raw=_raw(fields),
    )


def _raw(fields: Fields) -> str:
    text: str = fields.take("raw", str, "")
    if any(ord(character) > 255 for character in text):
        raise SuiteError(f"{fields.path}.raw", "must be bytes: no character beyond \\xff")
    return text


def parse_target(fields: Fields, protocol: str = "tcp") -> Target:
    """Who is asked, and at which port. Raises SuiteError."""
    text = fields.take("to", str)
    kind, _, name = text.partition("/")
    if kind not in TARGET_KINDS or (kind in NAMED_KINDS) != bool(name):
        known = ", ".join(f"{kind}/NAME" if kind in NAMED_KINDS else kind for kind in TARGET_KINDS)
        raise SuiteError(f"{fields.path}.to", f"{text!r} is none of {known}")
    return Target(kind, name, fields.take("port", int, PROTOCOLS[protocol]))


def parse_flow(value: Any, path: str) -> Mapping[str, str]:
    """What a flow must show: field -> value, or ~regex. Raises SuiteError."""
    fields = Fields.of(value, path)
    for name in fields.value:
        if name not in FLOW_FIELDS:
            raise SuiteError(f"{path}.{name}", f"is none of {', '.join(sorted(FLOW_FIELDS))}")
    return {name: str(text) for name, text in fields.value.items()}

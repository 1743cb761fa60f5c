"""What is said between a stage and the asker inside a pod (conformance.asker): one JSON document per line. Pure.

stage -> asker                                        asker -> stage
                                                      {"ready": 1}
{"id": 1, "attempt": {…}}                             {"id": 1, "answer": {…}}
{"id": 2, "open": "c1", "local": […], "remote": […]}  {"id": 2, "port": 20001}   or {"id": 2, "failed": "refused"}
{"id": 3, "over": "c1", "request": {…}, "patience": 5} {"id": 3, "answer": {…}}
{"close": "c1"}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from conformance.expectation import Answer, Reaction
from conformance.plain import Attempt
from conformance.scenario import Request

VERSION = 1
LINE_MAX = 16 << 20  # bytes

Message = Mapping[str, Any]


class Garbled(Exception):
    """A line that is none of these."""


def encode(message: Message) -> bytes:
    """One line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Raises Garbled."""
    try:
        message = json.loads(line)
    except ValueError:
        raise Garbled(f"no JSON: {line[:80]!r}") from None
    if not isinstance(message, dict):
        raise Garbled(f"no mapping: {line[:80]!r}")
    return message


def from_attempt(attempt: Attempt) -> dict[str, Any]:
    return asdict(attempt)


def from_answer(answer: Answer) -> dict[str, Any]:
    return asdict(answer)


def from_request(request: Request) -> dict[str, Any]:
    return asdict(request)


def to_attempt(raw: Any) -> Attempt:
    """Raises Garbled."""
    try:
        request = to_request(raw["request"]) if raw["request"] is not None else None
        local, remote = to_address(raw["local"]), to_address(raw["remote"])
        return Attempt(str(raw["protocol"]), local, remote, float(raw["patience"]), request, int(raw["icmp_type"]))
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled(f"no attempt: {error!r}") from None


def to_request(raw: Any) -> Request:
    """Raises Garbled."""
    try:
        return Request(**{**raw, "headers": _pairs(raw["headers"])})
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled(f"no request: {error!r}") from None


def to_answer(raw: Any) -> Answer:
    """Raises Garbled."""
    try:
        return Answer(**{**raw, "reaction": Reaction(raw["reaction"]), "headers": _pairs(raw["headers"])})
    except (KeyError, TypeError, ValueError) as error:
        raise Garbled(f"no answer: {error!r}") from None


def to_address(raw: Any) -> tuple[str, int]:
    """Raises Garbled."""
    try:
        host, port = raw
        return str(host), int(port)
    except (TypeError, ValueError) as error:
        raise Garbled(f"no address: {error!r}") from None


def _pairs(raw: Any) -> tuple[tuple[str, str], ...]:
    return tuple((str(name), str(value)) for name, value in raw)

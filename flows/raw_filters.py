"""Filters as JSON: printed as `hubble observe --print-raw-filters` prints them, and read as people write them. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable

from flow import flow_pb2
from google.protobuf import json_format
from observer import observer_pb2

from flows.jsonpb import to_json


class RawFilterError(ValueError):
    """Text that is no filter; one line."""


def filters_yaml(request: observer_pb2.GetFlowsRequest) -> str:
    """Both lists of a request, one line for each filter, with line ends."""
    lists = (("allowlist", request.whitelist), ("denylist", request.blacklist))
    lines = [
        line
        for name, filters in lists
        if filters
        for line in (f"{name}:", *(f"    - {_scalar(to_json(one))}" for one in filters))
    ]
    return "".join(f"{line}\n" for line in lines) or "{}\n"


def _scalar(text: str) -> str:
    """As YAML: in single quotes, where all characters can stand there."""
    if text.isprintable():
        return "'" + text.replace("'", "''") + "'"
    return '"' + "".join(_escaped(char) for char in text) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable() or char in "\u00a0\u2028\u2029":
        return char
    code = ord(char)
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def read_filters(texts: Iterable[str]) -> list[flow_pb2.FlowFilter]:
    """Every text holds JSON objects, one behind the other. Raises RawFilterError."""
    return [one for text in texts for one in _filters(text)]


def _filters(text: str) -> Iterable[flow_pb2.FlowFilter]:
    decoder, at = json.JSONDecoder(), 0
    while (at := _next(text, at)) < len(text):
        try:
            found, at = decoder.raw_decode(text, at)
            if not isinstance(found, dict):
                raise RawFilterError(f"failed to decode {text!r}: a filter is an object in braces")
            yield json_format.ParseDict(found, flow_pb2.FlowFilter())
        except (json.JSONDecodeError, json_format.ParseError, RecursionError) as error:
            raise RawFilterError(f"failed to decode {text!r}: {' '.join(str(error).split())}") from None


def _next(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at

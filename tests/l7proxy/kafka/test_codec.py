"""The codec and the scanner against kio: every request and response of every version, whole and in pieces."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.kafka import schema
from l7proxy.kafka.codec import UNKNOWN, decode, encode
from l7proxy.kafka.scan import Scan, plan
from l7proxy.kafka.schema import ARRAY, STRUCT, Struct
from l7proxy.kafka.wire import Cursor, WireError, varint
from tests.l7proxy.kafka.kio_messages import anything, entity, every, plain, wire

KNOWN = every()
REMOVED = Path(__file__).with_name("testdata") / "removed.txt"


def struct_of(key: int, version: int, kind: str) -> Struct:
    return (schema.request if kind == "request" else schema.response)(key, version)


def differences(ours: dict[str, Any], theirs: dict[str, Any], struct: Struct) -> list[str]:
    """Fields in which what we read is not what kio wrote."""
    found = []
    for field in (*struct.fields, *struct.tagged.values()):
        mine, other = ours.get(field.name, field.default), theirs[field.name]
        if isinstance(mine, memoryview | tuple):
            mine = bytes(mine) if isinstance(mine, memoryview) else list(mine)
        if field.struct is not None and isinstance(other, list):
            pairs = zip(mine, other, strict=True)
            found += [one for a, b in pairs for one in differences(a, b, field.struct)]
        elif field.struct is not None and isinstance(other, dict):
            found += differences(mine, other, field.struct)
        elif mine != other:
            found.append(f"{field.name}: {mine!r} is not {other!r}")
    return found


@given(st.integers(0, 2**63))
def test_what_kio_writes_is_read_and_written_again_byte_by_byte(seed: int) -> None:
    source = random.Random(seed)
    key, version, kind = source.choice(KNOWN)
    made, struct = anything(source, entity(key, version, kind)), struct_of(key, version, kind)
    content = wire(made)
    message = decode(struct, content)
    assert differences(message, plain(made), struct) == []
    assert encode(struct, message) == content


@pytest.mark.parametrize("key", sorted(schema.apis()))
def test_every_version_round_trips(key: int) -> None:
    source = random.Random(key)
    versions = {version: kind for k, version, kind in KNOWN if k == key}
    removed = {version for k, version, _, _ in recorded() if k == key}
    assert set(range(schema.apis()[key].last + 1)) == set(versions) | removed
    for version in versions:
        for kind in ("request", "response"):
            made, struct = anything(source, entity(key, version, kind)), struct_of(key, version, kind)
            assert encode(struct, decode(struct, wire(made))) == wire(made)


def recorded() -> Iterator[tuple[int, int, str, bytes]]:
    """Messages of versions that Kafka 4.0 removed, written by an older kio."""
    for line in REMOVED.read_text().splitlines():
        key, version, kind, content = line.split()
        yield int(key), int(version), kind, b"" if content == "-" else bytes.fromhex(content)


def test_versions_of_long_ago_round_trip_too() -> None:
    for key, version, kind, content in recorded():
        struct = struct_of(key, version, kind)
        assert encode(struct, decode(struct, content)) == content, (key, version, kind)


# --- scanning ---


def paths(struct: Struct, above: str = "") -> Iterator[str]:
    for field in struct.fields:
        yield above + field.name
        if field.struct is not None:
            yield from paths(field.struct, f"{above}{field.name}.")
        elif field.type.startswith(ARRAY):
            yield f"{above}{field.name}.each"


def values(struct: Struct, message: dict[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """What a scan for everything finds."""
    for field in struct.fields:
        value, path = message[field.name], above + field.name
        if field.type == STRUCT:
            if value is not None:
                yield from values(field.struct, value, path + ".")  # type: ignore[arg-type]
        elif field.type.startswith(ARRAY):
            yield path, -1 if value is None else len(value)
            for entry in value or ():
                if field.struct is not None:
                    yield from values(field.struct, entry, path + ".")
                else:
                    yield path + ".each", entry
        elif field.type not in ("bytes", "records"):
            yield path, value


def scan(struct: Struct, wanted: list[str], content: bytes, cuts: Iterator[int]) -> list[tuple[str, Any]]:
    made, at = Scan(plan(struct, wanted), len(content)), 0
    made.feed(b"")
    while at < len(content):
        size = next(cuts)
        made.feed(memoryview(content)[at : at + size])
        at += size
    assert made.is_over
    return [tuple(found) for found in made.found]


@given(st.integers(0, 2**63))
def test_a_scan_finds_what_decoding_does_however_the_message_is_cut(seed: int) -> None:
    source = random.Random(seed)
    key, version, kind = source.choice(KNOWN)
    struct = struct_of(key, version, kind)
    content = wire(anything(source, entity(key, version, kind)))
    every_path = list(paths(struct))
    expected = list(values(struct, decode(struct, content)))
    for wanted in (every_path, [path for path in every_path if source.random() < 0.3]):
        some = [(path, value) for path, value in expected if path in wanted]
        for cuts in ([len(content)], [1], [source.randrange(1, 30) for _ in range(50)]):
            assert scan(struct, wanted, content, iter(cuts * (len(content) + 1))) == some


def test_a_scan_that_halts_says_where_the_count_stands() -> None:
    struct = schema.response(3, 9)
    message = {"brokers": [{"node_id": 1, "host": "a", "port": 9092}], "topics": [], "cluster_id": None}
    content = encode(struct, message)
    made = Scan(plan(struct, ("topics",)), len(content), halt=True)
    for at in range(len(content)):
        made.feed(content[at : at + 1])
    assert made.place is not None
    first, end = made.place
    assert content[first:end] == b"\1"
    assert content[end:] == b"\x80\0\0\0\0"  # cluster_authorized_operations, tagged fields


# --- what is wrong ---


@given(st.integers(0, 2**63), st.data())
def test_whatever_is_wrong_is_the_protocol_error(seed: int, data: st.DataObject) -> None:
    source = random.Random(seed)
    key, version, kind = source.choice(KNOWN)
    struct = struct_of(key, version, kind)
    content = bytearray(wire(anything(source, entity(key, version, kind))))
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[source.randrange(len(content))] = source.choice((0, 1, 0x7F, 0x80, 0xFF))
    cut = bytes(content[: source.randrange(len(content) + 1)])
    for broken in (bytes(content), cut):
        readable = True
        try:
            decode(struct, broken)
        except WireError:
            readable = False
        try:
            scan(struct, [], broken, iter([len(broken)] * 2))
        except WireError:
            assert not readable, "what can be decoded can be scanned"


def test_an_array_that_claims_more_than_the_message_costs_nothing() -> None:
    with pytest.raises(WireError, match="longer than the message"):
        decode(schema.request(42, 0), b"\x7f\xff\xff\xff")
    with pytest.raises(WireError, match="longer than the message"):
        Scan(plan(schema.request(42, 0), ()), 100).feed(b"\x7f\xff\xff\xff")


def test_tagged_fields_that_are_not_known_are_kept() -> None:
    struct = schema.request(12, 4)
    content = encode(struct, {"group_id": "g", "member_id": "m"})[:-1] + varint(1) + varint(77) + varint(2) + b"xy"
    message = decode(struct, content)
    assert message[UNKNOWN] == [(77, b"xy")]
    assert encode(struct, message) == content


@pytest.mark.parametrize(
    "broken", [b"\x80", b"\x80\x80\x80\x80\x80", b"\xff\xff\xff\xff\xff\x01", b"\xff\xff\xff\xff\x7f"]
)
def test_a_number_without_an_end_is_malformed(broken: bytes) -> None:
    with pytest.raises(WireError):
        Cursor(broken).varint()

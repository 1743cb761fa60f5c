"""Splitting identities and ports, following what changes, and prefixes: each against the obvious way to do it."""

from __future__ import annotations

import ipaddress
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from policies.compiling.changes import changed_keys, changed_values
from policies.compiling.named_ports import NamedPorts, PortName
from policies.compiling.partition import bits, classes, port_pieces
from policies.labels import cidr_key, prefix_of
from policies.prefixes import Prefix, PrefixMap, PrefixNumbers, parse_prefix
from policies.types import PortRange, Protocol

_sets = st.lists(st.sets(st.integers(0, 12)).map(BitMap), max_size=6)


@given(_sets)
def test_classes_are_disjoint_and_say_who_is_in_which_sets(sets: list[BitMap]) -> None:
    found = classes(sets)
    assert len({mask for mask, _ in found}) == len(found)
    assert all(members for _, members in found)
    by_identity = {identity: mask for mask, members in found for identity in members}
    assert len(by_identity) == sum(len(members) for _, members in found)
    expected: Counter[int] = Counter()
    for i, members in enumerate(sets):
        expected.update(dict.fromkeys(members, 1 << i))
    assert by_identity == dict(expected)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=6))
def test_pieces_cover_what_the_ranges_cover_and_nothing_twice(written: list[tuple[int, int]]) -> None:
    ranges = [PortRange(min(pair), max(pair)) for pair in written]
    found = {port: which for piece, which in port_pieces(ranges) for port in range(piece.first, piece.last + 1)}
    assert sum(p.last - p.first + 1 for p, _ in port_pieces(ranges)) == len(found)
    for port in range(22):
        assert found.get(port, []) == [i for i, ports in enumerate(ranges) if port in ports]


def test_the_last_port_ends_a_piece() -> None:
    assert list(port_pieces([PortRange(0, 65535), PortRange(65535, 65535)])) == [
        (PortRange(0, 65534), [0]),
        (PortRange(65535, 65535), [0, 1]),
    ]
    assert list(bits(0b1011)) == [0, 1, 3]


_views = st.dictionaries(st.integers(0, 3000), st.integers(0, 2), max_size=12)


@given(_views, _views, st.integers(0, 2600))
def test_what_changed_is_found_between_two_views(before: dict[int, int], after: dict[int, int], more: int) -> None:
    shared = {key: (key, 9) for key in range(5000, 5000 + more)}
    # Values know their keys, and one that did not change is the same object.
    values = {(key, value): (key, value) for view in (before, after) for key, value in view.items()}
    one = {key: values[key, value] for key, value in sorted(before.items())} | shared
    other = {key: values[key, value] for key, value in sorted(after.items())} | shared
    expected = {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}
    assert changed_keys(one, other) == expected
    old, new = changed_values(list(one.values()), list(other.values()))
    assert {value[0] for value in {*old} ^ {*new}} == expected


_prefixes = st.one_of(
    st.builds(lambda n, length: str(ipaddress.ip_network((n << 24, length), strict=False)), *[st.integers(0, 32)] * 2),
    st.builds(
        lambda n, length: str(ipaddress.ip_network((n << 120, length), strict=False)), *[st.integers(0, 128)] * 2
    ),
)


@given(st.sets(_prefixes, max_size=8), _prefixes)
def test_prefixes_are_found_by_what_they_contain(known: set[str], asked: str) -> None:
    book: PrefixMap[str] = PrefixMap()
    numbers = PrefixNumbers()
    for i, text in enumerate(sorted(known)):
        book[parse_prefix(text)] = text
        numbers.add(parse_prefix(text), i)
    network = ipaddress.ip_network(asked)
    others = [ipaddress.ip_network(text) for text in sorted(known)]
    alike = [other for other in others if other.version == network.version]
    around = sorted((o for o in alike if network.subnet_of(o)), key=lambda o: o.prefixlen)  # type: ignore[arg-type]
    assert list(book.containing(parse_prefix(asked))) == list(map(str, around))
    assert book.longest(parse_prefix(asked)) == (str(around[-1]) if around else None)
    inside = {str(other) for other in alike if other.subnet_of(network)}  # type: ignore[arg-type]
    assert {sorted(known)[i] for i in numbers.within(parse_prefix(asked))} == inside
    for i, text in enumerate(sorted(known)):
        del book[parse_prefix(text)]
        numbers.remove(parse_prefix(text), i)
    assert book.longest(parse_prefix(asked)) is None
    assert numbers.within(parse_prefix(asked)) == []


@pytest.mark.parametrize(
    ("prefix", "key"),
    [
        ("10.0.0.0/8", "cidr:10.0.0.0/8"),
        ("fd00::/8", "cidr:fd00--0/8"),
        ("::1/128", "cidr:0--1/128"),
        ("::/0", "cidr:0--0/0"),
        ("2001:db8::1/128", "cidr:2001-db8--1/128"),
    ],
)
def test_keys_of_prefixes_are_written_as_cilium_writes_them(prefix: str, key: str) -> None:
    assert cidr_key(prefix) == key
    assert parse_prefix(prefix_of(key)) == parse_prefix(prefix)
    assert str(parse_prefix(prefix)) == prefix


def test_an_address_is_a_prefix_and_host_bits_are_masked() -> None:
    assert parse_prefix("10.1.2.3") == Prefix(4, 0x0A010203, 32)
    assert str(parse_prefix("10.1.2.3/8")) == "10.0.0.0/8"


def test_a_name_has_the_numbers_of_all_who_carry_it() -> None:
    ports, http = NamedPorts(), PortName("http", Protocol.TCP)
    ports.set("a", {("http", Protocol.TCP): 80}, 256)
    ports.set("b", {("http", Protocol.TCP): 80}, 256)
    ports.set("c", {("http", Protocol.TCP): 8080}, 257)
    before = ports.version([http])
    ports.set("b", {}, 0)
    assert ports.version([http]) == before  # another pod of that identity still has it
    assert ports.carriers(http) == [(80, BitMap([256])), (8080, BitMap([257]))]
    ports.set("a", {("http", Protocol.TCP): 81}, 256)
    assert ports.version([http]) > before
    assert ports.carriers(http) == [(81, BitMap([256])), (8080, BitMap([257]))]

"""--fqdn-enforcement: toFQDNs held by addresses, by the name in a request, or by both."""

from __future__ import annotations

import pytest
import re2
from hypothesis import example, given
from hypothesis import strategies as st

from policies.compiling.by_name import FqdnEnforcement, host_regex, split
from policies.compiling.compiler import Compiler, CompilerOptions
from policies.compiling.fqdns import Home, Keys
from policies.compiling.slot_records import SlotBook
from policies.compiling.slots import assign
from policies.dns_patterns import Dialect, NameSet, canonical, canonical_pattern
from policies.ir import FqdnSelector, HttpRule, L7Parser, NodePolicy, TlsRule, Verdict
from policies.ir_yaml import node_from_dict
from policies.judging.server_names import literal_of, regex_of
from policies.rules import Entity, EntityPeer, FqdnPeer, PortSpec, ToPorts
from policies.types import Direction, PortRange, Protocol
from tests.policies.language import GET, POST, TIE, Galaxy, cidr, clause, policy, to

NAMES = [FqdnPeer(FqdnSelector(name="api.x.io.")), FqdnPeer(FqdnSelector(pattern="*.cdn.net."))]
WORLD4, WORLD6 = 9, 10


class Unasked:
    """A book of names in which nothing is learned yet: each selector's identity is there beforehand."""

    def __init__(self) -> None:
        self.keys: Keys = frozenset()

    def follow(self, keys: Keys) -> None:
        self.keys = keys

    def drain(self) -> dict[Home, Keys]:
        return {}

    def likely(self) -> list[Keys]:
        return [frozenset({key}) for key in sorted(self.keys)]


def node(how: FqdnEnforcement, *entries, **options) -> NodePolicy:  # type: ignore[no-untyped-def]
    galaxy = Galaxy(options=CompilerOptions(node_name="here", fqdn_enforcement=how))
    galaxy.compiler = Compiler(galaxy.identities, galaxy.options, Unasked())
    return galaxy.node(policy("p", egress=[clause(NAMES, *entries)], **options))


def at(found: NodePolicy, port: int):  # type: ignore[no-untyped-def]
    group = next(e.group for e in found.endpoints if e.name == TIE.name)
    (mine,) = (p for p in found.policies if p.group == group)
    ports = mine.direction(Direction.EGRESS).ports
    return next((p.peers for p in ports if port in p.ports), ())


def test_by_address_a_rule_is_for_those_who_have_the_names() -> None:
    found = node(FqdnEnforcement.IP, to(80, http=[GET]))
    (peer,) = at(found, 80)
    assert WORLD4 not in peer.identities
    assert [rule.host for rule in peer.rule_set.http] == [""]
    assert found.fqdn_selectors


def test_by_name_it_is_for_the_whole_world_and_asks_for_the_host() -> None:
    found = node(FqdnEnforcement.NAME, to(80, http=[GET, POST]))
    (peer,) = at(found, 80)
    assert {WORLD4, WORLD6} <= set(peer.identities)
    assert peer.verdict is Verdict.REDIRECT
    host = host_regex(peer.selector for peer in NAMES)
    assert [(rule.method, rule.host) for rule in peer.rule_set.http] == [("GET", host), ("POST", host)]
    assert found.fqdn_selectors == (), "nobody waits for addresses that do not matter"


def test_by_both_it_is_for_learned_addresses_and_asks_for_the_host() -> None:
    found = node(FqdnEnforcement.BOTH, to(80, http=[GET]))
    (peer,) = at(found, 80)
    assert WORLD4 not in peer.identities
    assert peer.rule_set.http[0].host
    assert found.fqdn_selectors


def test_a_rule_for_everything_is_one_for_these_names() -> None:
    (peer,) = at(node(FqdnEnforcement.NAME, to(80, http=[HttpRule()])), 80)
    assert not peer.rule_set.allows_all


def test_other_ports_of_the_entry_are_held_by_addresses() -> None:
    found = node(FqdnEnforcement.NAME, to(80, http=[GET]), to(8443))
    (other,) = at(found, 8443)
    assert (other.verdict, WORLD4 in other.identities) == (Verdict.ALLOW, False)
    assert found.fqdn_selectors


def test_tls_is_for_the_whole_world_and_asks_for_the_server_name() -> None:
    found = node(FqdnEnforcement.NAME, to(443))
    (peer,) = at(found, 443)
    assert {WORLD4, WORLD6} <= set(peer.identities)
    assert peer.verdict is Verdict.REDIRECT
    assert [(rule.name, rule.pattern) for rule in peer.rule_set.tls] == [("", "*.cdn.net."), ("api.x.io.", "")]
    assert peer.rule_set.parser is L7Parser.TLS
    assert found.fqdn_selectors == ()
    slotted, _ = assign(found, SlotBook())
    slot = slotted.slots[0]
    assert (slot.parser, slot.name.endswith(":tcp:443:tls")) == (L7Parser.TLS, True)
    assert node_from_dict(slotted.to_dict()) == slotted


def test_tls_by_both_is_for_learned_addresses() -> None:
    found = node(FqdnEnforcement.BOTH, to(443))
    (peer,) = at(found, 443)
    assert (peer.verdict, WORLD4 in peer.identities, len(peer.rule_set.tls)) == (Verdict.REDIRECT, False, 2)
    assert found.fqdn_selectors


def test_tls_by_address_is_no_matter_of_names() -> None:
    (peer,) = at(node(FqdnEnforcement.IP, to(443)), 443)
    assert (peer.verdict, peer.rule_set) == (Verdict.ALLOW, None)


def test_an_allow_without_names_voids_them() -> None:
    galaxy = Galaxy(options=CompilerOptions(node_name="here", fqdn_enforcement=FqdnEnforcement.NAME))
    world = clause([EntityPeer(Entity.WORLD)], to(443))
    (peer,) = at(galaxy.node(policy("p", egress=[clause(NAMES, to(443)), world])), 443)
    assert peer.rule_set.allows_all


def test_only_tcp_443_is_parted() -> None:
    """The same port of other protocols, and other ports of the same entry, stay with the addresses."""
    ports = (PortSpec(Protocol.ANY, PortRange(443, 443)), PortSpec(Protocol.TCP, PortRange(8443, 8443)))
    rest, named = split(clause(NAMES, ToPorts(ports)), FqdnEnforcement.NAME)
    assert [(entry.ports, entry.parser) for entry in named.to_ports] == [
        ((PortSpec(Protocol.TCP, PortRange(443, 443)),), L7Parser.TLS)
    ]
    assert [str(spec.protocol.name) + str(spec.ports) for entry in rest.to_ports for spec in entry.ports] == [
        "UDP443",
        "SCTP443",
        "TCP8443",
    ]
    assert (rest.peers, named.peers) == (tuple(NAMES), (EntityPeer(Entity.WORLD),))


@pytest.mark.parametrize(
    "entry",
    [
        to(443, http=[HttpRule(host="a[.]cdn[.]net")]),
        ToPorts((PortSpec(Protocol.TCP, PortRange(440, 450)),)),
        ToPorts((PortSpec(Protocol.UDP, PortRange(443, 443)),)),
        ToPorts((PortSpec(Protocol.TCP, "https"),)),
    ],
)
def test_what_is_no_plain_443_is_held_by_addresses(entry: ToPorts) -> None:
    one = clause(NAMES, entry)
    assert split(one, FqdnEnforcement.NAME) == (one,)


@pytest.mark.parametrize(
    ("name", "selected"),
    [("a.cdn.net", True), ("a.cdn.net.", True), ("a.b.cdn.net", False), ("cdn.net", False), ("a.cdn.net.evil", False)],
)
def test_server_names_of_a_pattern(name: str, selected: bool) -> None:
    rule = TlsRule(pattern="*.cdn.net.")
    assert (re2.fullmatch(regex_of(rule), name) is not None) is selected
    assert literal_of(rule) == literal_of(TlsRule()) == ""
    assert literal_of(TlsRule("api.x.io.")) == "api.x.io"


def test_a_host_of_its_own_is_left_alone() -> None:
    (peer,) = at(node(FqdnEnforcement.NAME, to(80, http=[HttpRule(host="img[.]cdn[.]net")])), 80)
    assert WORLD4 not in peer.identities
    assert peer.rule_set.http[0].host == "img[.]cdn[.]net"


def test_other_peers_are_left_alone() -> None:
    for one in (clause([cidr("192.0.2.0/24")], to(80, http=[GET])), clause(None, to(80, http=[GET])), clause(())):
        assert split(one, FqdnEnforcement.NAME) == (one,)


@pytest.mark.parametrize(
    ("authority", "selected"),
    [
        *(("api.x.io", True), ("API.x.IO", True), ("api.x.io:8080", True), ("api.x.io.", True), ("a.cdn.net", True)),
        *(("x.io", False), ("evil.api.x.io", False), ("api.x.io.evil.org", False), ("api-x.io", False)),
        *(("apiaxaio", False), ("a.b.cdn.net", False), ("api.x.io:80:80", False), ("", False), ("api.x.io@b", False)),
    ],
)
def test_authorities(authority: str, selected: bool) -> None:
    host = host_regex(peer.selector for peer in NAMES)
    assert (re2.fullmatch(host, authority) is not None) is selected


def test_the_root_is_no_host() -> None:
    assert re2.fullmatch(host_regex([FqdnSelector()]), "") is None
    assert re2.fullmatch(host_regex([FqdnSelector()]), ".") is None


TEXT = st.text("ab*.-", min_size=1, max_size=12)


@example("a.*", "a.")
@given(TEXT, st.text("ab.-", min_size=1, max_size=12))
def test_a_host_is_selected_as_its_name_is(pattern: str, host: str) -> None:
    if ".." in pattern or ".." in host or pattern.startswith(".") or host.startswith("."):
        return
    written = canonical_pattern(pattern)
    selector = FqdnSelector(pattern=written) if "*" in written else FqdnSelector(name=canonical(pattern))
    names = NameSet(
        [selector.name] if selector.name else [], [selector.pattern] if selector.pattern else [], Dialect.TO_FQDNS
    )
    assert (re2.fullmatch(host_regex([selector]), host) is not None) == (canonical(host) in names)
    server = TlsRule(selector.name, selector.pattern)
    if selector.pattern:
        assert (re2.fullmatch(regex_of(server), host) is not None) == (canonical(host) in names)

"""--fqdn-enforcement: toFQDNs held by addresses, by the name in a request, or by both."""

from __future__ import annotations

import pytest
import re2
from hypothesis import given
from hypothesis import strategies as st

from policies.compiling.by_name import FqdnEnforcement, host_regex, split
from policies.compiling.compiler import Compiler, CompilerOptions
from policies.compiling.fqdns import Home, Keys
from policies.dns_patterns import Dialect, NameSet, canonical, canonical_pattern
from policies.ir import FqdnSelector, HttpRule, NodePolicy, Verdict
from policies.rules import FqdnPeer
from policies.types import Direction
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
    found = node(FqdnEnforcement.NAME, to(80, http=[GET]), to(443))
    (tls,) = at(found, 443)
    assert (tls.verdict, WORLD4 in tls.identities) == (Verdict.ALLOW, False)
    assert found.fqdn_selectors


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

"""The evaluator against the judge of the DNS proxy: random rules and names. Pure, unlike the others here."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from l7proxy.dns.configuration import Configuration
from l7proxy.dns.judge import Judge, Reason
from l7proxy.dns.wire import OPCODE_QUERY, Question
from policies.dns_patterns import canonical, canonical_pattern
from policies.explaining.near_names import NearNames
from policies.ir import DnsRule, L7Parser, Listening, RuleSet, Slot
from policies.judging.names import NameQuery, decide_name
from policies.types import Direction, Origin, PortRange, Protocol

PLACE = (Protocol.UDP, 10_053)
_labels = st.sampled_from(["a", "b", "api", "x-1", "_tcp"])
_names = st.lists(_labels, min_size=1, max_size=4).map(".".join)
_globs = st.sampled_from(["*", "**", "a*", "*b", "a*b", "***"])
_patterns = st.lists(st.one_of(_labels, _labels, _globs), min_size=1, max_size=4).map(".".join)
_written = st.one_of(
    st.builds(lambda name: DnsRule(canonical(name)), _names),
    st.builds(lambda pattern: DnsRule(pattern=canonical_pattern(pattern)), _patterns),
)
_asked = st.one_of(_names, _names.map(str.upper), st.sampled_from([".", "a b.", "*.a", "xn--a", "a..b"]))


def as_rules(written: list[DnsRule]) -> RuleSet:
    rules = {rule.match_key: rule for rule in written}
    placed = (
        DnsRule(*key, (Origin("CiliumNetworkPolicy", "default", "p", f"dns[{i}]"),))
        for i, key in enumerate(sorted(rules))
    )
    return RuleSet(dns=tuple(placed))


@settings(max_examples=400, deadline=None)
@given(st.lists(_written, min_size=1, max_size=5), _asked)
@example([DnsRule(".")], ".")
@example([DnsRule(pattern="*")], "a b.")
def test_explain_says_what_the_proxy_does(written: list[DnsRule], asked: str) -> None:
    rules = as_rules(written)
    slot = Slot("s", Direction.EGRESS, 1, Protocol.UDP, PortRange(53, 53), rules, parser=L7Parser.DNS)
    judge = Judge(Configuration((Listening(slot, PLACE[1]),)))
    question = Question(canonical(asked), 1, 1)
    found = judge.decide(PLACE, OPCODE_QUERY, (question,))
    said = decide_name(rules, NameQuery(asked))
    assert said.allowed is (found.reason is None)
    assert found.reason in (None, Reason.NAME_DENIED)
    assert (said.rule is None) is (found.rule is None)
    if said.rule is not None and found.rule is not None:
        assert bool(said.rule.pattern) is bool(found.rule.pattern)
        assert decide_name(RuleSet(dns=(found.rule,)), NameQuery(asked)).allowed
    else:
        nearest = NearNames(rules).nearest(canonical(asked))
        assert nearest is not None
        assert nearest.rule in rules.dns

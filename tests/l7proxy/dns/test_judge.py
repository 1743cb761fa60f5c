"""What may be asked."""

from __future__ import annotations

import pytest

from l7proxy.dns.configuration import Configuration, Options
from l7proxy.dns.judge import Decision, Judge, Reason
from l7proxy.dns.wire import FORMERR, NXDOMAIN, REFUSED, SERVFAIL
from policies.ir import DnsRule, Listening, Slot, SlotState
from policies.types import Protocol
from tests.l7proxy.dns.make import ORIGIN, allowing, question, slot

GITHUB, ANY_X = DnsRule("api.github.com.", origins=(ORIGIN,)), DnsRule(pattern="*.x.io.", origins=(ORIGIN,))
RULES = allowing(GITHUB, ANY_X)
UDP = (Protocol.UDP, 15353)


def judge(one: Slot | None = None, rejection: str = "refused") -> Judge:
    return Judge(Configuration((Listening(one or slot(rules=RULES), 15353),), Options(rejection=rejection)))


def asked(judging: Judge, *names: str, opcode: int = 0, place: tuple[Protocol, int] = UDP) -> Decision:
    return judging.decide(place, opcode, tuple(question(name) for name in names))


def test_a_name_that_a_rule_has_is_allowed_by_that_rule() -> None:
    decision = asked(judge(), "api.github.com.")
    assert (decision.reason, decision.rule) == (None, GITHUB)
    assert decision.slot is not None
    assert decision.slot.name == "egress:4711:udp:53"
    assert asked(judge(), "a.x.io.").rule == ANY_X


def test_another_name_is_not() -> None:
    assert asked(judge(), "www.github.com.").reason is Reason.NAME_DENIED


def test_every_question_is_judged_each_by_any_rule() -> None:
    both = asked(judge(), "api.github.com.", "b.x.io.")
    assert (both.reason, both.rule) == (None, GITHUB)
    assert asked(judge(), "api.github.com.", "evil.org.").reason is Reason.NAME_DENIED
    assert asked(judge(), "evil.org.", "api.github.com.").reason is Reason.NAME_DENIED


@pytest.mark.parametrize("qtype", [1, 16, 28, 33, 65, 252, 255])
def test_the_type_of_a_question_does_not_matter(qtype: int) -> None:
    assert judge().decide(UDP, 0, (question("a.x.io.", qtype),)).reason is None


def test_no_rules_allow_nothing_and_a_star_every_name() -> None:
    assert asked(judge(slot()), "a.x.io.").reason is Reason.NAME_DENIED
    every = DnsRule(pattern="*")
    assert asked(judge(slot(rules=allowing(every))), "odd\\032name.").rule == every


def test_an_allow_without_rules_lets_everything_pass_and_so_does_a_slot_that_nobody_needs_any_more() -> None:
    for one in (slot(rules=allowing(wildcard=True)), slot(state=SlotState.DRAINED)):
        decision = asked(judge(one), "odd\\032name.")
        assert (decision.reason, decision.rule) == (None, None)


def test_a_slot_whose_rules_are_gone_refuses() -> None:
    assert asked(judge(slot(rules=RULES, state=SlotState.RETIRED)), "a.x.io.").reason is Reason.RETIRED


def test_what_is_undecidable_is_refused() -> None:
    assert asked(judge(), "a.x.io.", place=(Protocol.TCP, 15353)).reason is Reason.UNKNOWN_SLOT
    assert asked(judge(), "a.x.io.", place=(Protocol.UDP, 15354)).reason is Reason.UNKNOWN_SLOT
    assert asked(judge(), "a.x.io.", opcode=5).reason is Reason.NOT_A_QUERY
    assert asked(judge()).reason is Reason.NO_QUESTION


def test_without_a_configuration_everything_is_refused() -> None:
    assert asked(Judge(None), "a.x.io.").reason is Reason.NO_CONFIGURATION
    assert Judge(None).rcode(Reason.NO_CONFIGURATION) == SERVFAIL


def test_the_code_says_whether_policy_spoke_or_something_is_wrong() -> None:
    assert judge().rcode(Reason.NAME_DENIED) == REFUSED
    assert judge(rejection="nameError").rcode(Reason.NAME_DENIED) == NXDOMAIN
    assert judge(rejection="nameError").rcode(Reason.OVERLOAD) == SERVFAIL
    assert judge().rcode(Reason.MALFORMED) == FORMERR
    assert {reason for reason in Reason if judge().rcode(reason) == REFUSED} == {Reason.NAME_DENIED}

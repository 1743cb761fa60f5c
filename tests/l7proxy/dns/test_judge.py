"""Who may ask whom what."""

from __future__ import annotations

import pytest

from l7proxy.dns.configuration import Configuration, NameRules, Options, Slot
from l7proxy.dns.judge import Asked, Judge, Reason
from l7proxy.dns.wire import FORMERR, NXDOMAIN, REFUSED, SERVFAIL
from policies.types import Protocol
from tests.l7proxy.dns.make import question

RULES = (
    NameRules("mediabot", ("api.github.com",), ("*.x.io",)),
    NameRules("internal", (), ("**.cluster.local",), frozenset({1000})),
)
SLOT = Slot("egress:4711:udp:53", 15353, Protocol.UDP, RULES, 4711, 53, 53)


def judge(*slots: Slot, rejection: str = "refused") -> Judge:
    return Judge(Configuration("1", slots or (SLOT,), Options(rejection=rejection)))


def asked(*names: str, **more: object) -> Asked:
    made = Asked(Protocol.UDP, 15353, 4711, 53, 2, 0, tuple(question(name) for name in names))
    return made._replace(**more)  # type: ignore[arg-type]


def test_a_name_that_a_rule_has_is_allowed_by_that_rule() -> None:
    decision = judge().decide(asked("api.github.com."))
    assert (decision.reason, decision.rule) == (None, "mediabot")


def test_another_name_is_not() -> None:
    assert judge().decide(asked("www.github.com.")).reason is Reason.NAME_DENIED


def test_every_question_is_judged_each_by_any_rule() -> None:
    both = asked("api.github.com.", "db.default.svc.cluster.local.", server_identity=1000)
    assert judge().decide(both).reason is None
    assert judge().decide(asked("api.github.com.", "evil.org.")).reason is Reason.NAME_DENIED
    assert judge().decide(asked("evil.org.", "api.github.com.")).reason is Reason.NAME_DENIED


@pytest.mark.parametrize("qtype", [1, 16, 28, 33, 65, 252, 255])
def test_the_type_of_a_question_does_not_matter(qtype: int) -> None:
    assert judge().decide(asked("x", questions=(question("a.x.io.", qtype),))).reason is None


def test_rules_for_a_server_are_for_that_server() -> None:
    name = "db.default.svc.cluster.local."
    assert judge().decide(asked(name, server_identity=1000)).reason is None
    assert judge().decide(asked(name, server_identity=1001)).reason is Reason.NAME_DENIED
    only = Slot("s", 15353, Protocol.UDP, RULES[1:])
    assert judge(only).decide(asked(name)).reason is Reason.SERVER_DENIED


def test_rules_without_names_allow_every_name_and_no_rules_none() -> None:
    every = judge(Slot("s", 15353, Protocol.UDP, (NameRules("all"),)))
    assert every.decide(asked("odd\\032name.")).reason is None
    assert judge(Slot("s", 15353, Protocol.UDP)).decide(asked("a.x.io.")).reason is Reason.SERVER_DENIED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"group": None}, Reason.UNKNOWN_ENDPOINT),
        ({"group": 4712}, Reason.FOREIGN_SLOT),
        ({"server_port": 5353}, Reason.FOREIGN_SLOT),
        ({"protocol": Protocol.TCP}, Reason.UNKNOWN_SLOT),
        ({"proxy_port": 15354}, Reason.UNKNOWN_SLOT),
        ({"opcode": 5}, Reason.NOT_A_QUERY),
        ({"questions": ()}, Reason.NO_QUESTION),
    ],
)
def test_what_is_undecidable_is_refused(change: dict[str, object], reason: Reason) -> None:
    assert judge().decide(asked("a.x.io.", **change)).reason is reason


def test_without_a_configuration_everything_is_refused() -> None:
    assert Judge(None).decide(asked("a.x.io.")).reason is Reason.NO_CONFIGURATION
    assert Judge(None).rcode(Reason.NO_CONFIGURATION) == SERVFAIL


def test_the_code_says_whether_policy_spoke_or_something_is_wrong() -> None:
    assert judge().rcode(Reason.NAME_DENIED) == REFUSED
    assert judge(rejection="nameError").rcode(Reason.NAME_DENIED) == NXDOMAIN
    assert judge(rejection="nameError").rcode(Reason.UNKNOWN_ENDPOINT) == SERVFAIL
    assert judge().rcode(Reason.MALFORMED) == FORMERR
    policy = {Reason.SERVER_DENIED, Reason.NAME_DENIED}
    assert {reason for reason in Reason if judge().rcode(reason) == REFUSED} == policy

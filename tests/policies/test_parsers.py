"""Rules of several parsers in one galaxy: who judges what, conflicts, and slots that never change their parser."""

from __future__ import annotations

from policies.compiling.compiler import CompilerOptions
from policies.compiling.roles import KafkaRoles
from policies.compiling.slots import SlotBook, assign
from policies.errors import Reason
from policies.ir import KafkaRule, L7Parser, NodePolicy, Slot, SlotState, Verdict
from policies.kafka_keys import CILIUM_ROLES, ROLES
from policies.rules import Policy
from policies.types import Protocol
from tests.policies.language import (
    ANNOUNCE,
    ANY_NAME,
    DEATHSTAR,
    GET,
    GITHUB,
    PLANS,
    TIE,
    XWING,
    Galaxy,
    clause,
    entity,
    having,
    may,
    policy,
    to,
)

EMPIRE, ALLIANCE = having(org="empire"), having(org="alliance")
DNS = {"at": DEATHSTAR, "direction": "egress"}


def names(*rules: object, protocol: Protocol = Protocol.ANY) -> Policy:
    asked = to(53, protocol=protocol, dns=rules or (GITHUB,))  # type: ignore[arg-type]
    return policy("names", egress=[clause([entity("all")], asked)])


def test_dns_rules_on_any_protocol_are_for_udp_and_tcp_and_nothing_else() -> None:
    node = Galaxy().node(names())
    assert {what: may(node, TIE, f"{what}/53", **DNS) for what in ("UDP", "TCP", "SCTP")} == {
        "UDP": "api.github.com.",
        "TCP": "api.github.com.",
        "SCTP": "deny",
    }


def test_a_plain_allow_of_the_same_peers_voids_dns_and_kafka_rules() -> None:
    broker = policy("broker", ingress=[clause([EMPIRE], to(9092, kafka=[PLANS])), clause([having(craft="tiefighter")])])
    plain = policy("plain", egress=[clause([ALLIANCE], to(53, protocol=Protocol.UDP))])
    node = Galaxy().node(broker, names(), plain)
    assert may(node, TIE, 9092) == "deathstar-plans *"
    assert may(node, XWING, "UDP/53", **DNS) == "api.github.com. *"
    assert may(node, XWING, "TCP/53", **DNS) == "api.github.com."


def test_a_policy_that_enforces_nothing_sees_and_refuses_nothing() -> None:
    watching = policy("watching", egress=[clause(None, to(53, dns=[GITHUB]))], enforces=())
    assert may(Galaxy().node(watching), TIE, 53, **DNS) == "api.github.com. *"


def test_rules_of_several_policies_are_one_list() -> None:
    one = policy("one", ingress=[clause([EMPIRE], to(9092, kafka=[PLANS]))])
    other = policy("other", ingress=[clause(None, to(9092, kafka=[PLANS, ANNOUNCE]))])
    node = Galaxy().node(one, other)
    assert may(node, TIE, 9092) == "deathstar-plans empire-announce"
    rules = {rule for slot in _slots(node)[1] for rule in slot.rule_set.kafka if rule.topic == PLANS.topic}
    assert {tuple(origin.name for origin in rule.origins) for rule in rules} == {("one", "other"), ("other",)}


def test_two_parsers_for_the_same_peers_and_port_deny_these_and_nobody_else() -> None:
    one = policy("one", ingress=[clause([EMPIRE], to("80-90", http=[GET]))])
    other = policy("other", ingress=[clause([having(craft="tiefighter"), ALLIANCE], to(85, kafka=[PLANS]))])
    compiled = Galaxy().compile(one, other)
    node = compiled.node
    assert [may(node, who, 85) for who in (TIE, XWING, DEATHSTAR)] == ["deny", "deathstar-plans", "GET"]
    assert may(node, TIE, 84) == may(node, TIE, 86) == "GET"
    found = {(error.name, error.path, error.reason) for error in compiled.errors}
    assert found == {("one", "spec.ingress[0]", Reason.CONFLICT), ("other", "spec.ingress[0]", Reason.CONFLICT)}
    said = next(error.message for error in compiled.errors if error.name == "one")
    assert said == (
        "http rules, while CiliumClusterwideNetworkPolicy other spec.ingress[0] (kafka rules) asks for others on "
        "85/TCP: peers that both choose are denied"
    )


def test_a_conflict_ends_when_one_of_them_is_gone_or_denied_anyway() -> None:
    one = policy("one", ingress=[clause([EMPIRE], to(85, http=[GET]))])
    other = policy("other", ingress=[clause(None, to(85, kafka=[PLANS]))])
    galaxy = Galaxy()
    assert galaxy.compile(one, other).errors
    assert may(galaxy.node(one), TIE, 85) == "GET"
    denied = policy("denied", ingress=[clause([EMPIRE], to(85), deny=True)])
    assert may(galaxy.node(one, other, denied), TIE, 85) == "deny"


def test_whoever_comes_into_a_conflict_is_told_of() -> None:
    """Identities move between the classes of what was merged before."""
    one = policy("one", ingress=[clause([EMPIRE], to(85, http=[GET]))])
    other = policy("other", ingress=[clause([having(craft="tiefighter")], to(85, kafka=[PLANS]))])
    galaxy = Galaxy(pods=[DEATHSTAR, XWING])
    assert not galaxy.compile(one, other).errors
    galaxy.pods = [DEATHSTAR, XWING, TIE]
    compiled = galaxy.compile(one, other)
    assert len(compiled.errors) == 2
    assert may(compiled.node, TIE, 85) == "deny"
    galaxy.pods = [DEATHSTAR, XWING]
    assert not galaxy.compile(one, other).errors


def test_a_node_whose_roles_are_ciliums() -> None:
    role = KafkaRule(ROLES["produce"], topic="plans")
    made = policy("p", ingress=[clause(None, to(9092, kafka=[role]))])
    options = CompilerOptions(node_name="here", kafka_roles=KafkaRoles.CILIUM)
    for galaxy, keys in ((Galaxy(), ROLES), (Galaxy(options=options), CILIUM_ROLES)):
        (found,) = {rule.api_keys for slot in _slots(galaxy.node(made))[1] for rule in slot.rule_set.kafka}
        assert found == keys["produce"]


def _slots(node: NodePolicy, book: SlotBook | None = None) -> tuple[SlotBook, list[Slot]]:
    named, after = assign(node, book or SlotBook())
    named.validate()
    return after, list(named.slots)


def test_each_parser_has_its_own_slots_on_one_port() -> None:
    one = policy("one", having(craft="deathstar"), ingress=[clause([EMPIRE], to(85, http=[GET]))])
    other = policy("other", having(craft="deathstar"), ingress=[clause([ALLIANCE], to(85, kafka=[PLANS]))])
    _, slots = _slots(Galaxy().node(one, other))
    group = slots[0].group
    assert [(slot.name, slot.parser) for slot in slots] == [
        (f"ingress:{group}:tcp:85", L7Parser.HTTP),
        (f"ingress:{group}:tcp:85:kafka", L7Parser.KAFKA),
    ]


def test_a_slot_never_changes_its_parser() -> None:
    galaxy, chosen = Galaxy(), having(craft="deathstar")
    http = policy("p", chosen, ingress=[clause([ALLIANCE], to(85, http=[GET]))])
    kafka = policy("p", chosen, ingress=[clause([ALLIANCE], to(85, kafka=[PLANS]))])
    book, (before,) = _slots(galaxy.node(http))
    book, after = _slots(galaxy.node(kafka), book)
    states = {slot.parser: (slot.name, slot.state) for slot in after}
    assert states[L7Parser.HTTP] == (before.name, SlotState.RETIRED)  # its connections are of no use to the other
    assert states[L7Parser.KAFKA] == (f"{before.name}:kafka", SlotState.ACTIVE)
    _, back = _slots(galaxy.node(http), book)
    assert {(slot.name, slot.state) for slot in back} == {
        (before.name, SlotState.RETIRED),
        (f"{before.name}:1", SlotState.ACTIVE),
        (f"{before.name}:kafka", SlotState.RETIRED),
    }


def test_an_edit_of_names_keeps_the_slot_and_dropping_them_drains_it() -> None:
    galaxy, chosen = Galaxy(), having(craft="deathstar")

    def asking(*rules: object) -> NodePolicy:
        asked = to(53, protocol=Protocol.UDP, dns=rules)  # type: ignore[arg-type]
        return galaxy.node(policy("p", chosen, egress=[clause([ALLIANCE], asked)]))

    book, (before,) = _slots(asking(GITHUB))
    book, (edited,) = _slots(asking(GITHUB, ANY_NAME), book)
    assert (edited.name, edited.state, len(edited.rule_set.dns)) == (before.name, SlotState.ACTIVE, 2)
    _, (drained,) = _slots(asking(), book)
    assert (drained.name, drained.state, drained.parser) == (before.name, SlotState.DRAINED, L7Parser.DNS)
    assert drained.rule_set.allows_all


def test_the_book_of_an_earlier_agent_knew_of_one_parser() -> None:
    galaxy = Galaxy()
    node = galaxy.node(policy("p", ingress=[clause([ALLIANCE], to(85, http=[GET], kafka=()))]), names())
    book, _ = _slots(node)
    stored = book.to_dict()
    assert SlotBook.from_dict(stored) == book
    for record in stored["slots"]:
        parser = record.pop("parser")
        assert parser == ("dns" if record["direction"] == "egress" else "http")
    assert {record.place.parser for record in SlotBook.from_dict(stored).records} == {L7Parser.HTTP}


def test_a_deny_of_some_is_stronger_than_any_parser() -> None:
    node = Galaxy().node(
        names(ANY_NAME), policy("no", egress=[clause([ALLIANCE], to(53, protocol=Protocol.UDP), deny=True)])
    )
    assert may(node, XWING, "UDP/53", **DNS) == Verdict.DENY
    assert may(node, TIE, "UDP/53", **DNS) == "*"

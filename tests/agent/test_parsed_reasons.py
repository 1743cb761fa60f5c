"""Why a DNS message passed or did not, as a view tells flows and the book of usage."""

from __future__ import annotations

from agent.usage.book import RuleUse, Usage
from agent.views.node_view import NodeView
from agent.views.searches import Searches
from agent.views.slot_reasons import Outcome
from flows.record import DnsRecord, Judgement, KafkaRecord, Leg, ParserVerdict, SlotRef
from policies.compiling.slots import NOT_ENFORCED
from policies.explaining import reasons
from policies.ir import (
    DirectionPolicy,
    DnsRule,
    EndpointPolicy,
    KafkaRule,
    L7Parser,
    NodePolicy,
    PeerRule,
    PortPolicy,
    RuleSet,
    Slot,
    Verdict,
)
from policies.kafka_keys import ROLES
from policies.types import Direction, Origin, PortRange, Protocol
from policies.world import World

GROUP = 2222
NAME = f"egress:{GROUP}:udp:53"
CLAUSE = Origin("CiliumNetworkPolicy", "default", "names", "spec.egress[0]")
LEG = Leg(SlotRef(NAME, Direction.EGRESS, GROUP), "10.0.0.2", 45678, "10.0.0.53", 53, transport=Protocol.UDP)


def rule(number: int, name: str = "", pattern: str = "") -> DnsRule:
    path = f"{CLAUSE.path}.toPorts[0].rules.dns[{number}]"
    return DnsRule(name, pattern, (Origin(CLAUSE.kind, CLAUSE.namespace, CLAUSE.name, path),))


RULES = (rule(0, "www.example.com"), rule(1, pattern="*.cilium.io"), rule(2, "api.example.org"))


def view(rules: RuleSet, searches: Searches | None = None) -> NodeView:
    redirect = PeerRule([7], Verdict.REDIRECT, (CLAUSE,), rules, NAME)  # type: ignore[arg-type]
    ports = PortPolicy(Protocol.UDP, PortRange(53, 53), (redirect,))
    egress = DirectionPolicy(enforced=True, ports=(ports,))
    slot = Slot(NAME, Direction.EGRESS, GROUP, Protocol.UDP, PortRange(53, 53), rules, parser=L7Parser.DNS)
    policy = EndpointPolicy(GROUP, (), DirectionPolicy(), egress)
    return NodeView("n1", World(), NodePolicy(1, policies=(policy,), slots=(slot,)), {}, searches=searches)


def query(name: str, verdict: ParserVerdict = ParserVerdict.DROPPED, **judged: object) -> DnsRecord:
    return DnsRecord(LEG, name, ("A",), verdict=verdict, judgement=Judgement(**judged))  # type: ignore[arg-type]


DNS = RuleSet(dns=RULES)


def test_the_proxy_names_the_rule_and_the_rule_its_policy() -> None:
    why = view(DNS).why_parsed(query("a.cilium.io.", ParserVerdict.FORWARDED, rules=RULES[1].origins))
    assert why.log == (f"allowed by {CLAUSE}.toPorts[0].rules.dns[1] (pattern *.cilium.io)",)
    assert [policy.name for policy in why.policies] == ["names"]
    assert (why.outcome, why.rules) == (Outcome.ALLOWED, RULES[1].origins)


def test_a_refused_name_is_held_against_the_rule_that_ends_most_alike() -> None:
    why = view(DNS).why_parsed(query("mail.example.com."))
    assert why.log == (
        "none of 3 DNS rules allows it",
        f"enforced by {CLAUSE}",
        f"nearest {CLAUSE}.toPorts[0].rules.dns[0] (name www.example.com): "
        "name is mail.example.com, not www.example.com",
    )
    assert not why.policies  # nobody denies it explicitly
    assert (why.outcome, why.rules) == (Outcome.NEAR_MISS, RULES[0].origins)
    assert view(DNS).why_parsed(query("cilium.io.")).rules == RULES[1].origins


def test_a_name_that_rules_of_now_allow_was_judged_by_others() -> None:
    assert view(DNS).why_parsed(query("deep.cilium.io.")).log == (reasons.OUTDATED, f"enforced by {CLAUSE}")


def test_what_no_rule_is_to_blame_for_is_told_in_the_words_of_the_proxy() -> None:
    seen = view(DNS)
    assert seen.why_parsed(query("x.", reason="too many open queries")).log == (
        "too many open queries",
        f"enforced by {CLAUSE}",
    )
    assert seen.why_parsed(query("x.", ParserVerdict.ERROR, reason="server did\nnot answer")).log == (
        r"server did\nnot answer",
    )
    assert seen.why_parsed(query("x.", ParserVerdict.ERROR)).log == ()


def test_without_rules_nothing_passes_and_where_all_passes_the_clause_is_named() -> None:
    assert view(RuleSet()).why_parsed(query("x.")).log == ("no rule allows anything here", f"enforced by {CLAUSE}")
    open_house = view(RuleSet(wildcard=(CLAUSE,)))
    passed = query("x.", ParserVerdict.FORWARDED)
    assert open_house.why_parsed(passed).log == (f"allowed by {CLAUSE}",)
    assert open_house.why_parsed(passed).outcome is None  # the connection is counted for it
    assert view(RuleSet(wildcard=(NOT_ENFORCED,))).why_parsed(passed).log == (reasons.NOT_ENFORCED,)


def test_a_slot_that_is_gone() -> None:
    elsewhere = query("x.")._replace(leg=LEG._replace(slot=SlotRef("egress:1:udp:53", Direction.EGRESS, 1)))
    assert view(DNS).why_parsed(elsewhere).log == (reasons.OUTDATED,)


def test_searches_have_their_share_of_time_and_no_more() -> None:
    seen = view(DNS, Searches(iter(range(0, 10**12, 10**9)).__next__))  # each look at the clock takes a second
    first, second = seen.why_parsed(query("a.example.com.")), seen.why_parsed(query("b.example.com."))
    assert first.is_traced
    assert second.log[-1] == reasons.NOT_SEARCHED
    assert (second.outcome, second.is_traced) == (Outcome.NEAR_MISS, False)
    assert seen.why_parsed(query("a.example.com.")) is first


def test_rules_are_counted() -> None:
    seen, usage = view(DNS), Usage(1)
    allowed = query("www.example.com.", ParserVerdict.FORWARDED, rules=RULES[0].origins)
    usage.follow(seen, 2)
    usage.rules |= {origin: RuleUse(1) for rule in RULES for origin in rule.origins}
    usage.parsed(seen, [(allowed, 2), (query("cilium.io."), 1)], 9)
    assert usage.rules[RULES[0].origins[0]].numbers == {Outcome.ALLOWED: 2}
    assert usage.rules[RULES[1].origins[0]].numbers == {Outcome.NEAR_MISS: 1}
    assert (usage.rules[RULES[0].origins[0]].last_ns, usage.rules[RULES[1].origins[0]].last_ns) == (9, 0)


BROKER = f"ingress:{GROUP}:tcp:9092:kafka"
TOPICS = Origin("CiliumNetworkPolicy", "default", "topics", "spec.ingress[0]")
ANNOUNCE = KafkaRule(ROLES["consume"], client_id="outpost", topic="empire-announce", origins=(TOPICS,))


def broker(*rules: KafkaRule) -> NodeView:
    redirect = PeerRule([7], Verdict.REDIRECT, (TOPICS,), RuleSet(kafka=rules), BROKER)  # type: ignore[arg-type]
    ports = PortPolicy(Protocol.TCP, PortRange(9092, 9092), (redirect,))
    ingress = DirectionPolicy(enforced=True, ports=(ports,))
    where = (BROKER, Direction.INGRESS, GROUP, Protocol.TCP, PortRange(9092, 9092))
    slot = Slot(*where, RuleSet(kafka=rules), parser=L7Parser.KAFKA)
    policy = EndpointPolicy(GROUP, (), ingress, DirectionPolicy())
    return NodeView("n1", World(), NodePolicy(1, policies=(policy,), slots=(slot,)), {})


def request(api: str, *topics: str, client: str = "outpost", **more: object) -> KafkaRecord:
    leg = Leg(SlotRef(BROKER, Direction.INGRESS, GROUP), "10.0.0.2", 40000, "10.0.0.9", 9092, transport=Protocol.TCP)
    told = {"verdict": ParserVerdict.DROPPED, "client_id": client} | more
    return KafkaRecord(leg, api, 4, topics=topics, **told)  # type: ignore[arg-type]


def test_a_kafka_request_is_allowed_by_the_rule_that_its_proxy_names() -> None:
    allowed = request("fetch", "empire-announce", verdict=ParserVerdict.FORWARDED, judgement=Judgement((TOPICS,)))
    why = broker(ANNOUNCE).why_parsed(allowed)
    assert why.log == (f"allowed by {TOPICS} (role consume client outpost topic empire-announce)",)
    assert (why.outcome, [policy.name for policy in why.policies]) == (Outcome.ALLOWED, ["topics"])


def test_a_refused_kafka_request_is_held_against_the_nearest_rule_in_the_words_of_explain() -> None:
    seen = broker(ANNOUNCE)
    said = f"nearest {TOPICS} (role consume client outpost topic empire-announce): "
    why = seen.why_parsed(request("fetch", "deathstar-plans"))
    enforced = f"enforced by {TOPICS}"
    assert why.log == (
        "none of 1 Kafka rule allows it",
        enforced,
        f"{said}topic is deathstar-plans, not empire-announce",
    )
    assert (why.outcome, why.rules) == (Outcome.NEAR_MISS, (TOPICS,))
    hidden = "client ID is [redacted], not outpost"  # a client may call itself anything
    assert seen.why_parsed(request("fetch", "empire-announce", client="secret")).log[-1] == said + hidden
    listing = seen.why_parsed(request("describetopicpartitions")).log[-1]
    assert "API is describetopicpartitions, not role consume" in listing
    assert "topic is" not in listing, "who may ask for all topics hears of the allowed ones"
    assert "API is 1234, not role consume" in seen.why_parsed(request("1234", "x")).log[-1]


def test_a_kafka_request_that_rules_of_now_allow_was_judged_by_others() -> None:
    assert broker(ANNOUNCE).why_parsed(request("fetch", "empire-announce")).log[0] == reasons.OUTDATED

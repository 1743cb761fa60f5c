"""The whole answer to "may A talk to B?": each direction's verdict, who gave it, and what came nearest. Pure.

Made from the IR by policies.judging, which is held against the kernel and the proxies. A value; printing is others'
work.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TypeAlias

from policies.compiling.decisions import PARSER_CONFLICT
from policies.dns_patterns import canonical
from policies.explaining.differences import Nearest
from policies.explaining.near_clauses import InForce, Tried, in_force, nearest_clause
from policies.explaining.near_kafka import NearKafka
from policies.explaining.near_names import NearNames
from policies.explaining.nearest import explain_denial
from policies.explaining.scene import End, Scene, Target
from policies.ir import L7Parser, L7Rule, PeerRule, RuleSet, Verdict
from policies.judging.evaluate import PacketDecision, RequestDecision, decide_packet, decide_request
from policies.judging.kafka import KafkaRequest, decide_kafka
from policies.judging.names import NameQuery, decide_name
from policies.judging.requests import Request
from policies.types import IDENTITY_ANY, Direction, Origin, Protocol

Asked: TypeAlias = Request | NameQuery | KafkaRequest


class Reason(StrEnum):
    """Why a direction's verdict is what it is."""

    NO_ENDPOINT = "no-endpoint"  # it is no pod of this node: nothing is enforced here
    SELF = "self"  # a pod that talks to itself does not pass its own veth
    NOT_ENFORCED = "not-enforced"
    ALLOWED = "allowed"
    DENIED = "denied-by-rule"
    CONFLICT = "parser-conflict"  # policies ask for two parsers for the peer on the port
    HTTP = "http"  # the connection is allowed, the request is not; of DNS, Kafka and TLS likewise
    DNS = "dns"
    KAFKA = "kafka"
    TLS = "tls"
    DEFAULT_DENY = "default-deny"
    NO_BACKEND = "no-backend"  # a service without backends, or with ones of different identities, under egress policy


class L7Verdict(StrEnum):
    """ANSWERED: Envoy answers by itself. NOT_ASKED: no request was given; each one will be judged."""

    ALLOWED = "ALLOWED"
    DENIED = "DENIED"
    ANSWERED = "ANSWERED"
    NOT_ASKED = "NOT_ASKED"


@dataclass(frozen=True, slots=True)
class Question:
    """May `source` open a connection to `target`, and ask for this on it?"""

    source: End
    target: Target
    protocol: Protocol
    request: Asked | None = None


@dataclass(frozen=True, slots=True)
class L7:
    """The verdict on the request. `void_by`: allows without L7 because of which no rule restricts anything.

    `decision` is more of an HTTP request. `is_foreign`: what was asked is not of the protocol of the rules.
    `is_filtered`: of all topics that a Kafka request asks for, its answer has those that the rules allow.
    """

    verdict: L7Verdict
    rules: RuleSet
    rule: L7Rule | None = None
    nearest: Nearest | None = None
    decision: RequestDecision | None = None
    is_foreign: bool = False
    is_filtered: bool = False

    @property
    def void_by(self) -> tuple[Origin, ...]:
        return self.rules.wildcard


@dataclass(frozen=True, slots=True)
class Side:
    """One direction: the policy of `owner` on its peer. `by`: the clauses that decided; of a default deny, the specs
    that turned it on."""

    direction: Direction
    owner: str
    peer: str
    port: int
    reason: Reason
    allowed: bool
    by: tuple[Origin, ...] = ()
    in_force: tuple[Origin, ...] = ()
    nearest: Nearest | None = None
    l7: L7 | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Egress first, then ingress at each backend (one, but for services)."""

    question: Question
    egress: Side
    ingress: tuple[Side, ...]

    @property
    def allowed(self) -> bool:
        return self.egress.allowed and all(side.allowed for side in self.ingress)

    @property
    def shown_ingress(self) -> Side:
        """The one that decides: the first that denies, else the first."""
        return next((side for side in self.ingress if not side.allowed), self.ingress[0])


def explain(scene: Scene, question: Question) -> Explanation:
    """The answer to the question."""
    asked, source, target = question, question.source, question.target
    egress = _egress(scene, question)
    if egress.l7 is not None and egress.l7.decision is not None:  # what the first proxy forwards, the second judges
        question = replace(question, request=egress.l7.decision.arrival.request)
    ingress = tuple(_ingress(scene, question, end, port) for end, port in target.ends)
    if not ingress:
        nowhere = Side(Direction.INGRESS, target.name, source.name, target.port, Reason.NO_BACKEND, allowed=False)
        ingress = (nowhere,)
    return Explanation(asked, egress, ingress)


def _egress(scene: Scene, question: Question) -> Side:
    source, target = question.source, question.target
    if _is_self(question):
        return Side(Direction.EGRESS, source.name, target.name, target.port, Reason.SELF, allowed=True)
    policy = scene.policy(source)
    if policy is not None and policy.egress.enforced and target.service and target.identity == IDENTITY_ANY:
        active = in_force(scene.world.policies, source.labels, Direction.EGRESS)
        reason, enforcing = Reason.NO_BACKEND, _origins(active)
        return Side(Direction.EGRESS, source.name, target.name, target.port, reason, False, (), enforcing)
    name = target.ends[0][0].name if len(target.ends) == 1 else target.name
    tried = Tried(target.identity, scene.labels.get(target.identity, ()), name, question.protocol, target.port)
    return _side(scene, Direction.EGRESS, source, tried, question.request)


def _ingress(scene: Scene, question: Question, end: End, port: int) -> Side:
    source = question.source
    if _is_self(question):
        return Side(Direction.INGRESS, end.name, source.name, port, Reason.SELF, allowed=True)
    tried = Tried(source.identity, source.labels, source.name, question.protocol, port)
    return _side(scene, Direction.INGRESS, end, tried, question.request)


def _is_self(question: Question) -> bool:
    """Only without a service in between: what is translated comes back through the veth."""
    source, target = question.source, question.target
    own = source.endpoint
    return own is not None and not target.service and any(end.endpoint == own for end, _ in target.ends)


def _side(scene: Scene, direction: Direction, owner: End, tried: Tried, request: Asked | None) -> Side:
    policy = scene.policy(owner)
    if policy is None:
        return Side(direction, owner.name, tried.name, tried.port, Reason.NO_ENDPOINT, allowed=True)
    rules = policy.direction(direction)
    decision = decide_packet(rules, tried.peer, tried.protocol, tried.port)
    if not decision.enforced:
        return Side(direction, owner.name, tried.name, tried.port, Reason.NOT_ENFORCED, allowed=True)
    active = in_force(scene.world.policies, policy.labels, direction)
    by = decision.rule.origins if decision.rule is not None else _origins(active)
    reason, nearest, l7 = Reason.ALLOWED, None, None
    if decision.verdict is Verdict.DENY:
        reason = _why_denied(decision.rule)
        if reason is Reason.DEFAULT_DENY:
            nearest = nearest_clause(rules, active, direction, tried)
    else:
        l7 = _l7(decision, request, scene.hides_topics)
        if l7 is not None and l7.verdict not in _PASSING:
            reason = Reason(l7.rules.parser.value)
    return Side(
        direction,
        owner.name,
        tried.name,
        tried.port,
        reason,
        reason is Reason.ALLOWED,
        by,
        _origins(active),
        nearest,
        l7,
    )


_PASSING = (L7Verdict.ALLOWED, L7Verdict.NOT_ASKED)


def _why_denied(rule: PeerRule | None) -> Reason:
    if rule is None:
        return Reason.DEFAULT_DENY
    return Reason.CONFLICT if PARSER_CONFLICT in rule.origins else Reason.DENIED


def _l7(decision: PacketDecision, asked: Asked | None, hides: bool) -> L7 | None:
    rules = decision.rule.rule_set if decision.rule is not None else None
    if rules is None:
        return None
    match asked, rules.parser:
        case None, _:
            return L7(L7Verdict.ALLOWED if rules.allows_all else L7Verdict.NOT_ASKED, rules)
        case Request(), L7Parser.HTTP:
            return _http(rules, asked)
        case NameQuery(), L7Parser.DNS:
            return _dns(rules, asked)
        case KafkaRequest(), L7Parser.KAFKA:
            return _kafka(rules, asked, hides)
    return L7(L7Verdict.DENIED, rules, is_foreign=True)


def _http(rules: RuleSet, request: Request) -> L7:
    judged = decide_request(rules, request)
    if judged.arrival.status:
        return L7(L7Verdict.ANSWERED, rules, decision=judged)
    if judged.allowed:
        return L7(L7Verdict.ALLOWED, rules, judged.rule, decision=judged)
    nearest = explain_denial(rules, request) if not judged.fault else None
    return L7(L7Verdict.DENIED, rules, nearest=nearest, decision=judged)


def _dns(rules: RuleSet, query: NameQuery) -> L7:
    judged = decide_name(rules, query)
    if judged.allowed:
        return L7(L7Verdict.ALLOWED, rules, judged.rule)
    return L7(L7Verdict.DENIED, rules, nearest=NearNames(rules).nearest(canonical(query.name)))


def _kafka(rules: RuleSet, request: KafkaRequest, hides: bool) -> L7:
    judged = decide_kafka(rules, request)
    if judged.allowed:
        return L7(L7Verdict.ALLOWED, rules, next(iter(judged.rules), None), is_filtered=judged.is_filtered and hides)
    return L7(L7Verdict.DENIED, rules, nearest=NearKafka(rules).nearest(request))


def _origins(active: tuple[InForce, ...]) -> tuple[Origin, ...]:
    return tuple(dict.fromkeys(item.origin for item in active))

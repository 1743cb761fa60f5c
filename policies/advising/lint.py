"""What a whole folder of policies does not do: rules that are shadowed, voided, denied, or about nobody. Pure.

Read from the compiled policy, so that it is true for every kind of peer: a clause is needless if wherever it takes part
others allow the same. What one object alone shows is policies.advising.advice's to tell, and is told here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from policies.advising.advice import advise
from policies.advising.needless import Needless, needless, needless_rules
from policies.compiling.decisions import PARSER_CONFLICT
from policies.dns_patterns import Dialect, NameSet, canonical
from policies.errors import PolicyError, Reason, Severity, in_order
from policies.explaining.scene import Scene
from policies.ir import EndpointPolicy, FqdnSelector, L7Parser, NodePolicy, PeerRule, RuleSet, Verdict
from policies.objects import Pod
from policies.rules import Action, Clause, Entity, EntityPeer, FqdnPeer, Policy, Rule
from policies.selectors import Selector, label_map
from policies.types import Direction, Origin, Protocol
from policies.world import World

_HOST_LABELS = {"reserved:host": "", "any:host": ""}


@dataclass(slots=True)
class _Uses:
    """Where the clauses of one compiled node take part: peers that they allow, deny, or judge the requests of."""

    plain: dict[Origin, list[frozenset[Origin]]] = field(default_factory=dict)  # beside which others, each time
    denies: dict[Origin, list[frozenset[Origin]]] = field(default_factory=dict)
    judges: dict[Origin, list[tuple[PeerRule, bool]]] = field(default_factory=dict)  # voided there, or not
    rivals: dict[Origin, set[Origin]] = field(default_factory=dict)  # beside which others of another parser
    rule_sets: dict[int, RuleSet] = field(default_factory=dict)

    def __contains__(self, origin: Origin) -> bool:
        return any(origin in uses for uses in (self.plain, self.denies, self.judges, self.rivals))


def lint(scene: Scene, without_denies: Callable[[World], Scene]) -> tuple[PolicyError, ...]:
    """Every finding about the policies of a folder, sorted; `without_denies` compiles the same world with other
    policies."""
    uses = _uses(scene.node)
    bare = _uses(without_denies(_permissive(scene.world)).node) if _has_denies(scene.world) else uses
    found = [finding for policy in scene.world.policies.values() if policy.valid for finding in advise(policy)]
    found = [finding for finding in found if finding.severity is Severity.WARNING]
    groups = [label_map(policy.labels) for policy in scene.node.policies]
    mine: list[PolicyError] = []
    for policy in scene.world.policies.values():
        for rule in policy.rules if policy.valid else ():
            mine += _about_rule(policy, rule, groups, scene.world)
            if any(rule.subject.matches(labels) for labels in groups):
                mine += (e for clause in (*rule.ingress, *rule.egress) for e in _unreachable(clause, uses, bare))
    mine += _voided(uses)
    mine += _in_conflict(uses)
    mine += _unlearnt(scene)
    mine += map(_shadowed, [*needless(uses.plain), *needless(uses.denies), *needless_rules(uses.rule_sets.values())])
    told = _told(found)
    return in_order([*found, *(f for f in mine if (f.kind, f.namespace, f.name, str(f.reason), f.path) not in told)])


def _uses(node: NodePolicy) -> _Uses:
    uses = _Uses()
    for policy in node.policies:
        for direction in Direction:
            for ports in policy.direction(direction).ports:
                for rule in ports.peers:
                    _note(uses, rule)
    return uses


def _note(uses: _Uses, rule: PeerRule) -> None:
    rules = rule.rule_set
    if rules is not None:
        uses.rule_sets.setdefault(id(rules), rules)
    if PARSER_CONFLICT in rule.origins:
        for origin in rule.origins:
            uses.rivals.setdefault(origin, set()).update({*rule.origins} - {origin, PARSER_CONFLICT})
        return
    alike = frozenset(rules.wildcard if rules is not None else rule.origins)
    into = uses.denies if rule.verdict is Verdict.DENY else uses.plain
    for origin in rule.origins:
        if origin in alike:
            into.setdefault(origin, []).append(alike - {origin})
        else:
            uses.judges.setdefault(origin, []).append((rule, bool(alike)))


def _about_rule(policy: Policy, rule: Rule, groups: Iterable[Mapping[str, str]], world: World) -> Iterator[PolicyError]:
    clauses = (*rule.ingress, *rule.egress)
    spec = clauses[0].origin.path.partition(".")[0] if clauses else "spec"
    if not any(rule.subject.matches(labels) for labels in groups):
        origin = Origin(policy.kind, policy.namespace, policy.name, spec)
        yield _finding(origin, Reason.SELECTS_NOTHING, "no pod of this folder is chosen by it")
        return
    for direction in Direction:
        pods = [pod for pod in world.pods.values() if direction is Direction.EGRESS or _is_chosen(pod, rule, world)]
        known = {name for pod in pods for name in pod.ports}
        for clause in rule.clauses(direction):
            yield from _unknown_names(clause, known)


def _is_chosen(pod: Pod, rule: Rule, world: World) -> bool:
    """By its own labels and its namespace's: near enough to ask for names of ports."""
    namespace = world.namespaces.get(pod.namespace)
    labels = {f"k8s:{key}={value}" for key, value in pod.labels.items()}
    labels.add(f"k8s:io.kubernetes.pod.namespace={pod.namespace}")
    if namespace is not None:
        labels |= {f"k8s:io.cilium.k8s.namespace.labels.{key}={value}" for key, value in namespace.labels.items()}
    return rule.subject.matches(label_map(sorted(labels)))


def _unknown_names(clause: Clause, known: set[tuple[str, Protocol]]) -> Iterator[PolicyError]:
    for i, entry in enumerate(clause.to_ports):
        for spec in entry.ports:
            if isinstance(spec.ports, str) and not any(
                name == spec.ports and spec.protocol in (Protocol.ANY, protocol) for name, protocol in known
            ):
                origin = replace(clause.origin, path=f"{clause.origin.path}.toPorts[{i}]")
                words = f'no pod that it is about has a port named "{spec.ports}"'
                yield _finding(origin, Reason.SELECTS_NOTHING, words)


def _unreachable(clause: Clause, uses: _Uses, bare: _Uses) -> Iterator[PolicyError]:
    """A clause that says something, of a policy that selects some pod, and takes part nowhere."""
    says_nothing = clause.peers == () or (clause.peers is None and not clause.to_ports)
    if says_nothing or clause.origin in uses or _means_the_host(clause) or _names_asked(clause):
        return  # no file says where names lead to
    if clause.origin in bare:
        yield _finding(clause.origin, Reason.SHADOWED, "all that it allows is denied by others")
    elif not any(isinstance(spec.ports, str) for entry in clause.to_ports for spec in entry.ports):
        yield _finding(clause.origin, Reason.SELECTS_NOTHING, "nobody in this folder is chosen by its peers")


def _means_the_host(clause: Clause) -> bool:
    """The node reaches its pods anyway (allow-localhost), whatever says so too."""
    return any(
        peer == EntityPeer(Entity.HOST) or (isinstance(peer, Selector) and peer.matches(_HOST_LABELS))
        for peer in clause.peers or ()
    )


def _voided(uses: _Uses) -> Iterator[PolicyError]:
    """Clauses with L7 rules whose peers may send any request, by leave of others."""
    for origin, judged in sorted(uses.judges.items()):
        voided = [rule for rule, is_void in judged if is_void]
        if not voided:
            continue
        by = sorted({other for rule in voided if rule.rule_set is not None for other in rule.rule_set.wildcard})
        whom = "the same peers and ports" if len(voided) == len(judged) else "some of its peers or ports"
        words = f"{_names(by)} allows {whom} without L7 rules: every request passes"
        yield _finding(origin, Reason.L7_VOIDED, words)


def _in_conflict(uses: _Uses) -> Iterator[PolicyError]:
    """Clauses that cannot hold together for some of their peers."""
    for origin, others in sorted(uses.rivals.items()):
        if origin != PARSER_CONFLICT:
            words = (
                f"{_names(sorted(others))} asks for another parser for some of its peers and ports: these are denied"
            )
            yield _finding(origin, Reason.CONFLICT, words)


def _unlearnt(scene: Scene) -> Iterator[PolicyError]:
    """toFQDNs of pods whose lookups are never seen, or not of these names: no address is learned of them (6.3)."""
    known: dict[int, NameSet] = {}
    seen = [(label_map(policy.labels), _askable(policy, known)) for policy in scene.node.policies]
    for rule in (rule for policy in scene.world.policies.values() if policy.valid for rule in policy.rules):
        if not any(_names_asked(clause) for clause in rule.egress):
            continue
        chosen = [sets for labels, sets in seen if rule.subject.matches(labels)]
        askable = {id(names): names for sets in chosen for names in sets}.values()
        for clause in rule.egress if chosen else ():
            asked = _names_asked(clause)
            where = replace(clause.origin, path=f"{clause.origin.path}.toFQDNs")
            if asked and not askable:
                words = "no DNS rule lets the lookups of these pods be seen: no address is ever learned"
                yield _finding(where, Reason.SELECTS_NOTHING, words)
                continue
            for name in (canonical(selector.name) for selector in asked if selector.name):
                if not any(name in names for names in askable):
                    words = f"no DNS rule lets these pods ask for {name.removesuffix('.')}: they learn no address of it"
                    yield _finding(where, Reason.SELECTS_NOTHING, words)


def _names_asked(clause: Clause) -> list[FqdnSelector]:
    return [peer.selector for peer in clause.peers or () if isinstance(peer, FqdnPeer)]


def _askable(policy: EndpointPolicy, known: dict[int, NameSet]) -> list[NameSet]:
    """The names that its pods may ask for, wherever lookups are seen. `known`: what was made of rule sets before."""
    found = []
    for rules in (rule.rule_set for ports in policy.egress.ports for rule in ports.peers):
        if rules is not None and rules.parser is L7Parser.DNS:
            if id(rules) not in known:
                patterns = ["*"] if rules.wildcard else [rule.pattern for rule in rules.dns if rule.pattern]
                named = [rule.name for rule in rules.dns if not rule.pattern]
                known[id(rules)] = NameSet(named, patterns, Dialect.DNS_RULE)
            found.append(known[id(rules)])
    return found


def _shadowed(found: Needless) -> PolicyError:
    return _finding(found.origin, Reason.SHADOWED, f"{_names(found.by)} covers all of it")


def _names(origins: Iterable[Origin]) -> str:
    """The first, and how many more."""
    first, *more = origins
    return f"{first} (with {len(more)} more)" if more else str(first)


def _finding(origin: Origin, reason: Reason, words: str) -> PolicyError:
    about = (origin.kind, origin.namespace, origin.name, origin.path)
    return PolicyError(*about, reason, words, severity=Severity.WARNING)


def _told(findings: Iterable[PolicyError]) -> set[tuple[str, str, str, str, str]]:
    """What is said of each field, and so of the fields around it."""
    told = set()
    for finding in findings:
        path = finding.path
        while path:
            told.add((finding.kind, finding.namespace, finding.name, str(finding.reason), path))
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return told


def _has_denies(world: World) -> bool:
    return any(
        c.action is Action.DENY for p in world.policies.values() for r in p.rules for c in (*r.ingress, *r.egress)
    )


def _permissive(world: World) -> World:
    """The world without denials."""
    return replace(
        world,
        policies={
            key: replace(policy, rules=tuple(_without_denials(rule) for rule in policy.rules))
            for key, policy in world.policies.items()
        },
    )


def _without_denials(rule: Rule) -> Rule:
    ingress, egress = (tuple(c for c in rule.clauses(d) if c.action is Action.ALLOW) for d in Direction)
    return replace(rule, ingress=ingress, egress=egress)

"""What the author of a good policy may not have meant: warnings about one object, from its rules alone. Pure.

L7 rules that a broader allow makes void, rules that another one covers, selectors that choose nobody, and those that
choose the whole world. Nothing here needs to know a pod, a node or another policy (`deflector policy lint` does).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

from policies.advising.coverage import is_contradiction, is_everything, peers_cover, ports_cover
from policies.advising.wider import with_wider
from policies.errors import PolicyError, Reason, Severity, in_order
from policies.ir import HttpRule, L7Parser
from policies.labels import ANY, NAMESPACE_KEY, RESERVED
from policies.reading import network_policy
from policies.reading.crd_selectors import NAMESPACE_LABEL
from policies.rules import Action, Clause, Policy, Rule, ToPorts
from policies.selectors import Operator, Requirement, Selector
from policies.types import Direction

COMPARED_MAX: Final = 100_000  # peers and ports of one object that are held against each other, pair by pair
HEADERS_COMPARED_MAX: Final = 10_000  # headers of one entry's rules
_NEGATIVE: Final = frozenset({Operator.NOT_IN, Operator.DOES_NOT_EXIST})
_Shape = tuple[str, str, str, tuple[object, ...]]


def advise(policy: Policy) -> tuple[PolicyError, ...]:
    """Warnings, sorted; each names the field that it is about."""
    found: list[tuple[str, str, str]] = []
    by_subject: dict[Selector, list[Rule]] = {}
    for rule in policy.rules:
        if not rule.invalid:
            by_subject.setdefault(rule.subject, []).append(rule)
            found += _about_subject(rule, policy)
    for rules in by_subject.values():
        for direction in Direction:
            clauses = [
                _Clause(clause, direction in rule.enforces) for rule in rules for clause in rule.clauses(direction)
            ]
            found += _about_clauses(clauses, policy.kind)
    about = (policy.kind, policy.namespace, policy.name)
    return in_order(
        PolicyError(*about, path, reason, words, severity=Severity.WARNING) for path, reason, words in found
    )


@dataclass(frozen=True, slots=True)
class _Clause:
    """A clause, and whether its rule turns default deny on."""

    clause: Clause
    enforces: bool

    @property
    def path(self) -> str:
        return self.clause.origin.path


def _about_subject(rule: Rule, policy: Policy) -> Iterator[tuple[str, str, str]]:
    clauses = [*rule.ingress, *rule.egress]
    spec = clauses[0].origin.path.partition(".")[0] if clauses else "spec"
    field = "podSelector" if policy.kind == network_policy.KIND else "endpointSelector"
    keys = {requirement.key.partition(":")[0] for requirement in rule.subject.requirements if _asks(requirement)}
    if is_contradiction(_with_one_namespace(rule.subject)):
        yield f"{spec}.{field}", Reason.SELECTS_NOTHING, "no pod of this namespace can have all of these labels"
    elif policy.namespace and RESERVED in keys:
        words = "reserved identities are in no namespace: use a CiliumClusterwideNetworkPolicy"
        yield f"{spec}.{field}", Reason.SELECTS_NOTHING, words


def _asks(requirement: Requirement) -> bool:
    return requirement.operator not in _NEGATIVE


def _with_one_namespace(selector: Selector) -> Selector:
    """Pods have one label for their namespace, whatever source a selector asks for."""
    anywhere = f"{ANY}:{NAMESPACE_KEY}"
    return Selector.of(
        Requirement(NAMESPACE_LABEL, r.operator, r.values) if r.key == anywhere else r for r in selector.requirements
    )


def _about_clauses(clauses: Sequence[_Clause], kind: str) -> Iterator[tuple[str, str, str]]:
    for clause in clauses:
        yield from _about_peers(clause, kind)
        for i, entry in enumerate(clause.clause.to_ports):
            path = f"{clause.path}.toPorts[{i}].rules.{entry.parser}"
            if entry.l7 and not clause.enforces:
                words = "enableDefaultDeny is false in this direction: requests are seen, none is refused"
                yield path, Reason.L7_VOIDED, words
            yield from _about_http(entry) if entry.parser is L7Parser.HTTP else _about_names_and_topics(entry)
    pairs = sum(map(_size, clauses)) ** 2
    if pairs <= COMPARED_MAX:
        yield from _about_pairs(clauses)


def _size(clause: _Clause) -> int:
    """How much there is in it to compare."""
    ports = sum(len(entry.ports) for entry in clause.clause.to_ports)
    return 1 + len(clause.clause.peers or ()) + ports


def _about_peers(clause: _Clause, kind: str) -> Iterator[tuple[str, str, str]]:
    peers = clause.clause.peers
    selectors = [peer for peer in peers or () if isinstance(peer, Selector)]
    if any(is_contradiction(_with_one_namespace(selector)) for selector in selectors):
        yield clause.path, Reason.SELECTS_NOTHING, "nobody can have all labels that one of its selectors asks for"
    if clause.clause.action is Action.DENY or kind == network_policy.KIND:
        return
    if peers is None and clause.clause.to_ports:
        yield clause.path, Reason.SELECTS_EVERYTHING, "no peers are named: these ports are open to the world too"
    elif any(is_everything(peer) for peer in peers or ()):
        yield clause.path, Reason.SELECTS_EVERYTHING, "everybody, the world and all nodes included"
    elif any(selector.requirements and not any(map(_asks, selector.requirements)) for selector in selectors):
        words = "it only says who not: everybody else is meant, the world included"
        yield clause.path, Reason.SELECTS_EVERYTHING, words


def _about_pairs(clauses: Sequence[_Clause]) -> Iterator[tuple[str, str, str]]:
    """Each clause against all others. Of two that say the same, the later one is said to be of no effect."""
    for i, narrow in enumerate(clauses):
        if not _says_something(narrow.clause):
            continue
        others = [(j, other) for j, other in enumerate(clauses) if j != i and _says_something(other.clause)]
        above = next((o for j, o in others if _is_covered(narrow.clause, o.clause, is_later=j < i)), None)
        if above is not None:
            denied = above.clause.action is not narrow.clause.action
            words = f"all of it is denied by {above.path}" if denied else f"{above.path} covers all of it"
            yield narrow.path, Reason.SHADOWED, words
            continue
        for k, entry in enumerate(narrow.clause.to_ports):
            broad = next((o for _, o in others if _voids(o.clause, narrow.clause, entry)), None) if entry.l7 else None
            if broad is not None:
                words = f"{broad.path} allows the same peers and ports without L7 rules: every request passes"
                yield f"{narrow.path}.toPorts[{k}].rules.{entry.parser}", Reason.L7_VOIDED, words
            rival = next((o for _, o in others if _conflicts(o.clause, narrow.clause, entry)), None)
            if rival is not None:
                words = f"{rival.path} has rules of another parser for the same peers and ports: these are denied"
                yield f"{narrow.path}.toPorts[{k}].rules.{entry.parser}", Reason.CONFLICT, words


def _says_something(clause: Clause) -> bool:
    has_ports = not clause.to_ports or any(entry.ports for entry in clause.to_ports)
    return has_ports and clause.peers != () and not (clause.peers is None and not clause.to_ports)


def _is_covered(narrow: Clause, broad: Clause, *, is_later: bool) -> bool:
    """Whether `narrow` adds nothing to `broad`. Clauses with L7 rules cover only clauses with the very same ones."""
    if broad.action is Action.ALLOW and narrow.action is Action.DENY:
        return False
    if not peers_cover(broad.peers, narrow.peers):
        return False
    if broad.action is narrow.action and broad.peers == narrow.peers and _asked(broad) == _asked(narrow):
        return is_later
    if broad.action is Action.ALLOW:
        if any(entry.l7 for entry in narrow.to_ports):
            return False  # L7 rules that a plain allow voids are told in words of their own
        broad_entries = tuple(entry for entry in broad.to_ports if not entry.l7)
        if broad.to_ports and not broad_entries:
            return False
    else:
        broad_entries = broad.to_ports
    if not all(ports_cover(broad_entries, entry) for entry in narrow.to_ports or (None,)):
        return False
    mutual = peers_cover(narrow.peers, broad.peers) and all(
        ports_cover(narrow.to_ports, entry) for entry in broad.to_ports or (None,)
    )
    return is_later or not mutual or broad.action is not narrow.action


def _asked(clause: Clause) -> list[tuple[object, ...]]:
    """Its ports and requests, without where they are written."""
    return [(entry.ports, tuple(rule.match_key for rule in entry.l7)) for entry in clause.to_ports]


def _voids(broad: Clause, narrow: Clause, entry: ToPorts) -> bool:
    if broad.action is Action.DENY or narrow.action is Action.DENY or not peers_cover(broad.peers, narrow.peers):
        return False
    plain = tuple(other for other in broad.to_ports if not other.l7)
    return (not broad.to_ports or bool(plain)) and ports_cover(plain, entry)


def _conflicts(broad: Clause, narrow: Clause, entry: ToPorts) -> bool:
    """Whether the requests that `entry` is about, all of them, are to be judged by another parser too."""
    if entry.parser is None or not peers_cover(broad.peers, narrow.peers):
        return False
    rivals = tuple(other for other in broad.to_ports if other.parser not in (None, entry.parser))
    return bool(rivals) and ports_cover(rivals, entry)


def _about_names_and_topics(entry: ToPorts) -> Iterator[tuple[str, str, str]]:
    """The same of DNS and Kafka rules. Of two that say the same, the first stays."""
    gone: set[int] = set()
    for rule, wider in reversed(list(with_wider(entry.l7))):
        by = next((other for other in wider if id(other) not in gone), None)
        if by is not None:
            gone.add(id(rule))
            yield rule.origins[0].path, Reason.SHADOWED, f"{by.origins[0].path} allows all that it allows"


def _about_http(entry: ToPorts) -> Iterator[tuple[str, str, str]]:
    """Rules that another one of the same list makes needless: it leaves out a field that they have."""
    rules = [rule for rule in entry.l7 if isinstance(rule, HttpRule)]
    if sum(len(rule.headers) for rule in rules) > HEADERS_COMPARED_MAX:
        return
    plain = [rule for rule in rules if not rule.header_actions and not rule.unavailable]
    shapes = {_shape(rule) for rule in plain}
    filled = {_filled(shape) for shape in shapes}
    if len(filled) < 2:
        return
    by_shape = {_shape(rule): rule for rule in plain}
    for rule in plain:
        shape = _shape(rule)
        for general in _generalisations(shape, filled):
            other = by_shape.get(general)
            if other is not None and other is not rule:
                yield rule.origins[0].path, Reason.SHADOWED, f"{other.origins[0].path} allows all that it allows"
                break


def _shape(rule: HttpRule) -> _Shape:
    method, path, host = ("" if value == ".*" else value for value in (rule.method, rule.path, rule.host))
    return (method, path, host, rule.headers)


def _filled(shape: _Shape) -> tuple[bool, ...]:
    return tuple(map(bool, shape))


def _generalisations(shape: _Shape, known: set[tuple[bool, ...]]) -> Iterator[_Shape]:
    """The shape with some of its fields left out, of those forms that occur."""
    present = [i for i, value in enumerate(shape) if value]
    for count in range(len(present)):
        for kept in combinations(present, count):
            form = tuple(i in kept for i in range(4))
            if form in known:
                blank: _Shape = ("", "", "", ())
                general = tuple(value if i in kept else blank[i] for i, value in enumerate(shape))
                yield (str(general[0]), str(general[1]), str(general[2]), shape[3] if 3 in kept else ())

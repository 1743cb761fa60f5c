"""Which directions of a group are enforced, and what holds there besides the clauses (facts 3.1, 3.2). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

from policies.compiling.decisions import Decision
from policies.compiling.merge import Implicit, Inputs
from policies.compiling.named_ports import OwnPorts
from policies.compiling.shapes import DEFAULT_ALLOW, BoundClause
from policies.ir import Verdict
from policies.objects import ObjectKey
from policies.rules import Rule
from policies.types import Direction, Origin

INVALID_POLICY: Final = "invalid-policy"
INIT_LABEL: Final = "reserved:init"


class Enforcement(StrEnum):
    """`policy-enforcement`: where some rule selects the endpoint, everywhere, or nowhere."""

    DEFAULT = "default"
    ALWAYS = "always"
    NEVER = "never"


class AllowLocalhost(StrEnum):
    """Whether the node reaches its pods without a rule. AUTO is ALWAYS, as in Cilium wherever there is Kubernetes."""

    AUTO = "auto"
    ALWAYS = "always"
    POLICY = "policy"


class Bound(Protocol):
    """What is asked of a rule that was bound (policies.compiling.rulebook)."""

    @property
    def key(self) -> ObjectKey: ...
    @property
    def rule(self) -> Rule: ...
    def clauses(self, direction: Direction) -> tuple[BoundClause, ...]: ...


def inputs(
    rules: Sequence[Bound],
    direction: Direction,
    *,
    mode: Enforcement,
    localhost: AllowLocalhost,
    own_ports: OwnPorts = (),
) -> Inputs | None:
    """What the direction of a group with these rules is merged from; None: it is not enforced."""
    if mode is Enforcement.NEVER:
        return None
    clauses = tuple(clause for rule in rules for clause in rule.clauses(direction))
    enforcing = [rule for rule in rules if direction in rule.rule.enforces]
    is_default_deny = bool(enforcing) or mode is Enforcement.ALWAYS
    if not is_default_deny and not any(clause.says_anything for clause in clauses):
        return None
    otherwise = None if is_default_deny else Decision(Verdict.ALLOW, (Origin("deflector", "", DEFAULT_ALLOW, ""),))
    if invalid := {_invalid(rule.key) for rule in enforcing if rule.rule.invalid}:
        otherwise = Decision(Verdict.DENY, tuple(sorted(invalid)))
    allow_host = direction is Direction.INGRESS and localhost is not AllowLocalhost.POLICY
    names = {(named.name, named.protocol) for clause in clauses for named in clause.named}
    asked = tuple(entry for entry in own_ports if entry[0] in names) if direction is Direction.INGRESS else ()
    return Inputs(direction, clauses, Implicit(allow_host, otherwise), asked)


def mode_for(labels: Sequence[str], mode: Enforcement) -> Enforcement:
    """Endpoints that are still being set up are always enforced, unless nobody is."""
    return Enforcement.ALWAYS if INIT_LABEL in labels and mode is not Enforcement.NEVER else mode


def _invalid(key: ObjectKey) -> Origin:
    """What a denial says that only a refused policy is the reason for."""
    return Origin("deflector", "", INVALID_POLICY, f"{key.namespace}/{key.name}")

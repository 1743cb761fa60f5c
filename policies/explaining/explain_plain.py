"""An explanation as plain data: the form of `deflector policy explain -o json`. Pure."""

from __future__ import annotations

from typing import Any

from policies.explaining.differences import Nearest, origin_to_dict, rule_to_dict
from policies.explaining.explain import L7, Explanation, Side
from policies.explaining.places import Places
from policies.types import Origin


def to_dict(answer: Explanation, places: Places) -> dict[str, Any]:
    """The form of `deflector policy explain -o json`."""
    plain: dict[str, Any] = {
        "verdict": "ALLOWED" if answer.allowed else "DENIED",
        "egress": _side_to_dict(answer.egress, places),
        "ingress": _side_to_dict(answer.shown_ingress, places),
    }
    if len(answer.ingress) > 1:
        plain["backends"] = [_side_to_dict(side, places) for side in answer.ingress]
    return plain


def _side_to_dict(side: Side, places: Places) -> dict[str, Any]:
    return {
        "verdict": "ALLOWED" if side.allowed else "DENIED",
        "reason": side.reason.value,
        "endpoint": side.owner,
        "peer": side.peer,
        "port": side.port,
        "by": [_placed(origin, places) for origin in side.by],
        "in_force": [_placed(origin, places) for origin in side.in_force],
        "nearest": _nearest_to_dict(side.nearest, places),
        "differs": _differs(side.nearest),
        "l7": _l7_to_dict(side.l7, places),
    }


def _l7_to_dict(l7: L7 | None, places: Places) -> dict[str, Any] | None:
    if l7 is None:
        return None
    plain: dict[str, Any] = {
        "verdict": l7.verdict.value,
        "rule": None,
        "nearest": _nearest_to_dict(l7.nearest, places),
        "differs": _differs(l7.nearest),
        "parser": l7.rules.parser.value,
        "rules": len(l7.rules.rules),
        "void_by": [_placed(origin, places) for origin in l7.void_by],
    }
    if l7.is_filtered:
        plain["answer"] = "filtered"
    if l7.rule is not None:
        by = [_placed(origin, places) for origin in l7.rule.origins]
        plain["rule"] = {"by": by, l7.rule.parser.value: rule_to_dict(l7.rule)}
    if l7.decision is not None:
        plain["judged_path"] = l7.decision.arrival.request.path
        if l7.decision.fault:
            plain["fault"] = l7.decision.fault
        if l7.decision.arrival.status:
            plain["status"] = l7.decision.arrival.status
    return plain


def _nearest_to_dict(nearest: Nearest | None, places: Places) -> dict[str, Any] | None:
    if nearest is None:
        return None
    plain = nearest.to_dict()
    del plain["differs"]  # stands beside it
    return plain | {"by": [_placed(origin, places) for origin in nearest.origins], "words": str(nearest)}


def _differs(nearest: Nearest | None) -> list[dict[str, str | None]]:
    return [difference.to_dict() for difference in nearest.differs] if nearest is not None else []


def _placed(origin: Origin, places: Places) -> dict[str, Any]:
    place = places.of(origin)
    return origin_to_dict(origin) | ({"file": place.file, "line": place.line} if place is not None else {})

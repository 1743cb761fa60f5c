"""An AdmissionReview and the answer to it: the same words as `deflector policy validate`. Pure.

What a node would refuse is refused; warnings come back as warnings, which kubectl prints. What is no policy, a status,
or a removal is let pass: this is a help for authors, and not what closes the cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from policies.advising.advice import advise
from policies.errors import PolicyError, Severity
from policies.objects import POLICY_KINDS
from policies.reading.readers import read_object
from policies.rules import Policy

API: Final = "admission.k8s.io/v1"
WARNING_MAX: Final = 256  # characters; API servers cut there, and at 4096 for all of them
WARNINGS_MAX: Final = 14
MESSAGE_MAX: Final = 4096
JUDGED: Final = frozenset({*POLICY_KINDS, "CiliumCIDRGroup"})

Raw = dict[str, Any]


class NoReview(Exception):
    """What was sent is no AdmissionReview; one line."""


def answer(review: Any) -> Raw:
    """The AdmissionReview to send back. Raises NoReview."""
    request = review.get("request") if isinstance(review, dict) and review.get("kind") == "AdmissionReview" else None
    if not isinstance(request, dict) or not isinstance(request.get("uid"), str):
        raise NoReview("this is no AdmissionReview with a request and its uid")
    errors, warnings = findings(request)
    response: Raw = {"uid": request["uid"], "allowed": not errors}
    if errors:
        reason = "\n".join(_words(error) for error in errors)
        response["status"] = {"code": 422, "reason": "Invalid", "message": _cut(reason, MESSAGE_MAX)}
    if warnings:
        response["warnings"] = [_cut(_words(warning), WARNING_MAX) for warning in warnings[:WARNINGS_MAX]]
    return {"apiVersion": API, "kind": "AdmissionReview", "response": response}


def findings(request: Mapping[str, Any]) -> tuple[tuple[PolicyError, ...], tuple[PolicyError, ...]]:
    """Errors and warnings of the object that is to be written."""
    raw = request.get("object")
    if request.get("operation") not in ("CREATE", "UPDATE") or request.get("subResource") or not isinstance(raw, dict):
        return (), ()
    kind = raw.get("kind")
    if not isinstance(kind, str) or kind not in JUDGED or _is_unchanged(raw, request.get("oldObject")):
        return (), ()
    asked = {key: value for key, value in raw.items() if key != "status"}
    metadata = asked.get("metadata")
    if isinstance(metadata, dict):
        asked["metadata"] = {**metadata, "name": metadata.get("name") or "generated"}
        if not metadata.get("namespace") and request.get("namespace"):
            asked["metadata"]["namespace"] = request["namespace"]
    reading = read_object(asked)
    advice = advise(reading.good) if isinstance(reading.good, Policy) else ()
    return reading.errors, (*reading.warnings, *advice)


def _is_unchanged(raw: Mapping[str, Any], old: object) -> bool:
    """A label or a finalizer of a bad object may still be changed, or it could not even be removed."""
    if not isinstance(old, dict):
        return False
    parts = ("spec", "specs")
    return all(raw.get(part) == old.get(part) for part in parts)


def _words(finding: PolicyError) -> str:
    """As `policy validate` has it, without what the API server says around it."""
    return str(replace(finding, kind="", namespace="", name="", severity=Severity.ERROR))


def _cut(words: str, most: int) -> str:
    return words if len(words) <= most else words[: most - 1] + "…"

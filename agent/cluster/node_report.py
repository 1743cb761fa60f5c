"""What a node reports of the policies that it enforces, in a few hundred bytes however many there are. Pure.

All nodes and the operator see the same policies change in the same order, kind by kind. So a node need not list what it
has realised: a sum over (name, uid, generation) names the state that it is in, and the operator knows when each state
was (agent.operator.timeline). What is not as its newest version wants it is listed, by policy; that is rare, and
bounded. docs/cluster.md has the protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

FAULTS_MAX: Final = 50
PROBLEMS_MAX: Final = 5
WORDS_MAX: Final = 300  # characters of one line
_BITS: Final = 64


def kind_of(name: str) -> str:
    """The kind of an object, of its name as `str(ObjectKey)` writes it."""
    return name.partition(" ")[0]


def version_of(metadata: Mapping[str, Any]) -> str:
    """Which version of what a policy asks for this is: GENERATION/UID; another one of the same name is another."""
    return f"{metadata.get('generation') or 0}/{metadata.get('uid') or ''}"


def token(name: str, version: str) -> int:
    """What one policy in one version adds to the state."""
    return int.from_bytes(hashlib.sha256(f"{name}\n{version}".encode()).digest()[: _BITS // 8])


def written(state: int) -> str:
    """A state as reports name it."""
    return f"{state % (1 << _BITS):016x}"


def states_of(versions: Mapping[str, str]) -> dict[str, str]:
    """The state of each kind, of policies by name and the version of each that is in force."""
    sums: dict[str, int] = {}
    for name, version in versions.items():
        kind = kind_of(name)
        sums[kind] = sums.get(kind, 0) + token(name, version)
    return {kind: written(total) for kind, total in sorted(sums.items())}


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """A policy that is not enforced as it is written: its name as `str(ObjectKey)`, and why."""

    policy: str
    words: str


@dataclass(frozen=True, slots=True)
class NodeReport:
    """`states` by kind; a kind that is not there has no policies. `complete`: nothing is as it should not be.
    `held`: seconds from enforcement to this report. `unlisted`: faults that had no room."""

    node: str
    states: Mapping[str, str]
    policies: int = 0
    complete: bool = True
    faults: tuple[Fault, ...] = ()
    unlisted: int = 0
    problems: tuple[str, ...] = ()
    held: float = 0.0
    version: str = ""


def report(node: str, versions: Mapping[str, str], *, faults: Iterable[Fault], problems: Iterable[str]) -> NodeReport:
    """The report of a node that has taken these versions; `problems` are about the node as a whole."""
    found = sorted({Fault(fault.policy, _short(fault.words)) for fault in faults})
    lines = list(dict.fromkeys(map(_short, problems)))
    return NodeReport(
        node,
        states_of(versions),
        len(versions),
        complete=not found and not lines,
        faults=tuple(found[:FAULTS_MAX]),
        unlisted=len(found[FAULTS_MAX:]),
        problems=tuple(lines[:PROBLEMS_MAX]),
    )


def to_body(said: NodeReport, renewed: str) -> dict[str, Any]:
    """The object. `renewed`: the time of it, RFC 3339."""
    status: dict[str, Any] = {
        "states": dict(said.states),
        "policies": said.policies,
        "complete": said.complete,
        "faults": [{"policy": fault.policy, "message": fault.words} for fault in said.faults],
        "unlistedFaults": said.unlisted,
        "problems": list(said.problems),
        "heldMilliseconds": round(said.held * 1000),
        "version": said.version,
        "renewed": renewed,
    }
    return {"metadata": {"name": said.node}, "status": status}


def from_body(raw: Mapping[str, Any]) -> NodeReport | None:
    """What a node has said. None for what no agent of ours writes: whoever writes a report may be anybody."""
    status, name = raw.get("status"), (raw.get("metadata") or {}).get("name")
    if not isinstance(status, dict) or not isinstance(name, str):
        return None
    try:
        return NodeReport(
            name,
            {str(kind): str(state) for kind, state in (status.get("states") or {}).items()},
            int(status.get("policies") or 0),
            bool(status.get("complete")),
            tuple(Fault(str(f["policy"]), _short(str(f["message"]))) for f in status.get("faults") or ())[:FAULTS_MAX],
            int(status.get("unlistedFaults") or 0),
            tuple(_short(str(line)) for line in status.get("problems") or ())[:PROBLEMS_MAX],
            max(0.0, float(status.get("heldMilliseconds") or 0) / 1000),
            str(status.get("version") or ""),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def _short(words: str) -> str:
    line = " ".join(words.split())
    return line if len(line) <= WORDS_MAX else line[: WORDS_MAX - 1] + "…"

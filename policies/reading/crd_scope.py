"""What is the same for everything inside one policy object as it is read: whose it is, findings, limits. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from policies.errors import Reason
from policies.reading.crd_selectors import Home
from policies.reading.fields import Findings, Path
from policies.types import Origin

# What one object may hold of each, whatever part of it they are in. Cilium has no such limits; hostile objects meet
# these before they cost anybody else: a node tells 65,535 prefixes apart, and an edit waits for the one before it.
LIMITS: Final = {
    "specs": 1_000,
    "entries of ingress and egress": 10_000,
    "peers": 20_000,
    "exceptions": 20_000,
    "ports": 100_000,
    "HTTP rules": 20_000,
    "DNS rules": 20_000,
    "Kafka rules": 20_000,
}


@dataclass(slots=True)
class Scope:
    """One object. `home` is that of the spec being read."""

    findings: Findings
    home: Home
    _taken: Counter[str] = field(default_factory=Counter)

    def origin(self, path: Path | str) -> Origin:
        findings = self.findings
        return Origin(findings.kind, findings.namespace, findings.name, str(path))

    def allows(self, what: str, count: int, path: Path) -> bool:
        """Whether so many more of these (a key of LIMITS) are within the limit; a finding, once, if not."""
        before = self._taken[what]
        self._taken[what] += count
        if before + count <= LIMITS[what]:
            return True
        if before <= LIMITS[what]:
            self.findings.ours(path, Reason.TOO_MANY, f"one object has at most {LIMITS[what]} {what}: split it")
        return False

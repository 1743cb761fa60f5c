"""rules.dns of Cilium's policies: raw entries -> DnsRule (facts 6.1). Pure. An object may have ten thousand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from policies.dns_patterns import canonical, canonical_pattern
from policies.errors import Reason
from policies.ir import DnsRule
from policies.reading.crd_scope import Scope
from policies.reading.dns_names import check_entry
from policies.reading.fields import Path, Raw
from policies.types import Origin


def read_dns_rules(written: Sequence[Any], path: Path, scope: Scope) -> tuple[DnsRule, ...]:
    """The rules, sorted, each match once; of two equal ones the first stays. A name and a pattern in one entry are two
    rules of one origin."""
    if not scope.allows("DNS rules", len(written), path):
        return ()
    findings = scope.findings
    rules: dict[tuple[str, str], DnsRule] = {}
    for i, item in enumerate(written):
        raw = check_entry(item, path[i], findings)
        if raw.get("matchName") and raw.get("matchPattern"):
            words = "matchName and matchPattern in one entry: either of them matches"
            findings.warn(path[i], Reason.REWRITTEN, words)
        origin = scope.origin(path[i])
        for rule in _rules_of(raw, (origin,)):
            known = rules.setdefault(rule.match_key, rule)
            if known.origins[0] != origin:
                findings.warn(path[i], Reason.SHADOWED, f"the same as {known.origins[0].path}")
    return tuple(rules[key] for key in sorted(rules))


def _rules_of(raw: Raw, origins: tuple[Origin, ...]) -> Iterator[DnsRule]:
    """What is no text has been found at fault before."""
    name, pattern = raw.get("matchName"), raw.get("matchPattern")
    if isinstance(pattern, str) and pattern:
        yield DnsRule(pattern=canonical_pattern(pattern), origins=origins)
        if not name:
            return
    yield DnsRule(canonical(name if isinstance(name, str) else ""), origins=origins)

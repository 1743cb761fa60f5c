"""Names and patterns of DNS as Cilium's policies write them (facts 6.1): what is one, and what is not. Pure."""

from __future__ import annotations

import re
from typing import Any, Final

from policies.errors import Reason
from policies.reading.fields import Findings, Path, Raw, Schema, mapping, text

DNS_NAME_MAX: Final = 255  # characters, of names and patterns (Cilium: MaxFQDNLength)
# The schema's patterns, in a form that takes linear time.
_NAME: Final = re.compile(r"[-a-zA-Z0-9_]+(?:\.[-a-zA-Z0-9_]+)*\.?")
_PATTERN: Final = re.compile(r"[-a-zA-Z0-9_*]+(?:\.[-a-zA-Z0-9_*]+)*\.?")
_SERVER_NAME: Final = re.compile(r"(?:\*?\*\.)?[-a-zA-Z0-9_]+(?:\.[-a-zA-Z0-9_]+)*\.?")
_ENTRY: Final = Schema.of("matchName", "matchPattern")


def check_entry(item: Any, path: Path, findings: Findings) -> Raw:
    """An entry of rules.dns or toFQDNs: matchName, matchPattern; {} after a finding that it is no mapping."""
    raw = mapping(item, path, findings)
    if raw is None:
        return {}
    _ENTRY.check(raw, path, findings)
    for field, fault_of in (("matchName", name_fault), ("matchPattern", pattern_fault)):
        written = text(raw, field, path, findings)
        if written and (fault := fault_of(written)):
            findings.add(path / field, Reason.BAD_NAME, fault)
    if not raw.get("matchName") and not raw.get("matchPattern"):
        findings.warn(path, Reason.SELECTS_NOTHING, "neither matchName nor matchPattern: no name but the root matches")
    return raw


def name_fault(written: str) -> str:
    """Why this is no matchName; "" if it is one."""
    return _fault(written, _NAME, 'letters, digits, "-", "_" and single dots')


def pattern_fault(written: str) -> str:
    """Why this is no matchPattern; "" if it is one."""
    return _fault(written, _PATTERN, 'letters, digits, "-", "_", "*" and single dots')


def server_name_fault(written: str) -> str:
    """Why this is no entry of serverNames; "" if it is one."""
    if not written:
        return "empty server name is not allowed"
    return _fault(written, _SERVER_NAME, 'letters, digits, "-", "_" and single dots, behind "*." or "**." at most')


def _fault(written: str, form: re.Pattern[str], words: str) -> str:
    if len(written) > DNS_NAME_MAX:
        return f"longer than {DNS_NAME_MAX} characters"
    return "" if form.fullmatch(written) else f'"{written}" has other characters than {words}'

"""rules.http of Cilium's policies: raw entries -> HttpRule (facts 4.1, 4.3). Pure. An object may have ten thousand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from policies.errors import Reason
from policies.ir import FRAMING_HEADERS, HeaderAction, HeaderMatch, HttpRule, MatchKey, Mismatch
from policies.reading.crd_scope import Scope
from policies.reading.fields import Findings, Path, Raw, Schema, items, mapping, submap, text
from policies.reading.sanitize import (
    Refused,
    header_match,
    header_name_fault,
    header_value_fault,
    object_name_fault,
    regex_fault,
)
from policies.rules import SecretHeader, SecretRule
from policies.types import Origin

HEADERS_MAX: Final = 100  # per rule, headerMatches included; Envoy takes as many in a request by default
_HTTP: Final = Schema.of("path", "method", "host", "headers", "headerMatches")
_MATCH: Final = Schema.of("name", "value", "mismatch", "secret")
_SECRET: Final = Schema.of("namespace", "name")
_MISMATCHES: Final = {action.value: action for action in Mismatch}
_DEFAULT_NAMESPACE: Final = "default"  # of secrets of clusterwide policies
# Cilium compiles path and method with Go's regexp, and host never (facts 1.4).
_PATTERNS: Final = ("method", "path", "host")

Expected = HeaderMatch | HeaderAction | SecretHeader


class HttpRules(NamedTuple):
    """Rules of one entry of toPorts: sorted, each match once, and those of them that need secrets."""

    rules: tuple[HttpRule, ...] = ()
    secret_rules: tuple[SecretRule, ...] = ()


def read_http_rules(written: Sequence[Any], path: Path, scope: Scope) -> HttpRules:
    """The rules; each has its own origin. Of two equal ones the first stays."""
    if not scope.allows("HTTP rules", len(written), path):
        return HttpRules()
    findings = scope.findings
    about = (findings.kind, findings.namespace, findings.name)
    prefix = str(path)
    rules: dict[MatchKey, HttpRule] = {}
    secret_rules: list[SecretRule] = []
    for i, raw in enumerate(written):
        if type(raw) is not dict:
            mapping(raw, path[i], findings)
            continue
        rule = _read_rule(raw, (path, i), (Origin(*about, f"{prefix}[{i}]"),), findings)
        if raw.get("headerMatches"):
            expects = _read_matches(raw, path[i], findings)
            rule = _with_matches(rule, expects)
            if rule.unavailable:
                secret_rules.append(SecretRule(rule, tuple(expects)))
        known = rules.setdefault(rule.match_key, rule)
        if known is not rule:
            findings.warn(path[i], Reason.SHADOWED, f"the same as {known.origins[0].path}")
    return HttpRules(tuple(rules[key] for key in sorted(rules)), tuple(secret_rules))


def _read_rule(raw: Raw, at: tuple[Path, int], origins: tuple[Origin, ...], findings: Findings) -> HttpRule:
    """One entry; its path is made only where there is something to say of it."""
    path, i = at
    if not raw.keys() <= _HTTP.known:
        _HTTP.check(raw, path[i], findings)
    pattern = []
    for name in _PATTERNS:
        value = raw.get(name, "")
        if type(value) is not str:
            value = text(raw, name, path[i], findings)
        if value and (fault := regex_fault(value)):
            refuse = findings.add if fault.by_cilium and name != "host" else findings.ours
            refuse(path[i] / name, Reason.BAD_REGEX, fault.message)
        pattern.append(value)
    headers = _read_headers(raw, path[i], findings) if raw.get("headers") else ()
    method, target, host = pattern
    return HttpRule(method, target, host, headers, origins)


def _read_headers(raw: Raw, path: Path, findings: Findings) -> tuple[HeaderMatch, ...]:
    found: set[HeaderMatch] = set()
    for i, item in enumerate(_bounded(raw, "headers", path, findings)):
        here = (path / "headers")[i]
        if not isinstance(item, str):
            findings.add(here, Reason.WRONG_TYPE, 'must be a string "Name value"')
            continue
        try:
            found.add(header_match(item))
        except Refused as refused:
            findings.ours(here, refused.reason, refused.message)
    return tuple(sorted(found, key=lambda header: header.key))


def _bounded(raw: Raw, name: str, path: Path, findings: Findings) -> Sequence[Any]:
    written = items(raw, name, path, findings)
    if len(written) > HEADERS_MAX:
        findings.ours(path / name, Reason.TOO_MANY, f"{len(written)} headers, the most is {HEADERS_MAX}")
        return ()
    return written


def _read_matches(raw: Raw, path: Path, findings: Findings) -> list[Expected]:
    found = []
    for i, item in enumerate(_bounded(raw, "headerMatches", path, findings)):
        here = (path / "headerMatches")[i]
        match = mapping(item, here, findings)
        if match is not None:
            found.append(_read_match(match, here, findings))
    return found


def _read_match(raw: Raw, path: Path, findings: Findings) -> Expected:
    _MATCH.check(raw, path, findings)
    name = text(raw, "name", path, findings)
    if not name:
        findings.add(path / "name", Reason.MISSING, "say which header")
    elif fault := header_name_fault(name):
        findings.ours(path / "name", Reason.BAD_HEADER, fault)
    value = text(raw, "value", path, findings) or None  # an empty value counts as none, as in Go
    if value is not None and header_value_fault(value):
        findings.ours(path / "value", Reason.BAD_HEADER, f"no request can have this value in header {name}")
    mismatch = _read_mismatch(raw, path, findings)
    if mismatch not in (None, Mismatch.LOG) and name.lower() in FRAMING_HEADERS:
        findings.ours(path / "mismatch", Reason.BAD_HEADER, f"{name} cannot be changed, only LOG is possible")
    if raw.get("secret") is not None:
        return _read_secret(raw, path, findings, (name.lower(), mismatch, value))
    return HeaderMatch(name.lower(), value) if mismatch is None else HeaderAction(name.lower(), mismatch, value)


def _read_mismatch(raw: Raw, path: Path, findings: Findings) -> Mismatch | None:
    written = text(raw, "mismatch", path, findings)
    if isinstance(raw.get("mismatch"), str) and written not in _MISMATCHES:
        findings.add(path / "mismatch", Reason.INVALID, f'"{written}" is none of {", ".join(_MISMATCHES)}')
    return _MISMATCHES.get(written)


def _read_secret(
    raw: Raw, path: Path, findings: Findings, header: tuple[str, Mismatch | None, str | None]
) -> SecretHeader:
    where = path / "secret"
    secret = submap(raw, "secret", path, findings)
    _SECRET.check(secret, where, findings)
    name = text(secret, "name", where, findings)
    namespace = text(secret, "namespace", where, findings) or findings.namespace or _DEFAULT_NAMESPACE
    if not name:
        findings.add(where / "name", Reason.MISSING, "say which Secret")
    for field, value in (("name", name), ("namespace", namespace)):
        if value and (fault := object_name_fault(value)):
            findings.ours(where / field, Reason.INVALID, fault)
    return SecretHeader(header[0], namespace, name, header[1], header[2])


def _with_matches(rule: HttpRule, expects: Sequence[Expected]) -> HttpRule:
    """The rule with its headerMatches, or one that matches nothing where it waits for secrets."""
    if any(isinstance(expected, SecretHeader) for expected in expects):
        unavailable = f"the secrets of {rule.origins[0].path} are not known yet"
        return HttpRule(rule.method, rule.path, rule.host, rule.headers, rule.origins, unavailable=unavailable)
    matches = {expected for expected in expects if isinstance(expected, HeaderMatch)}
    headers = tuple(sorted({*rule.headers, *matches}, key=lambda header: header.key))
    actions = tuple(expected for expected in expects if isinstance(expected, HeaderAction))
    return HttpRule(rule.method, rule.path, rule.host, headers, rule.origins, actions)

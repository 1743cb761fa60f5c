"""What keeps a request or a connection from a rule, as values, as plain data, and in words. Pure.

One vocabulary for `deflector policy explain`, for the policy log of flows, and for `observe --why`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from policies.errors import one_line
from policies.ir import REDACTED, DnsRule, HeaderMatch, HttpRule, KafkaRule, L7Rule, TlsRule
from policies.kafka_keys import CILIUM_ROLES, ROLES
from policies.kafka_keys import name_of as api_of
from policies.types import Origin

_ROLES: Final = {keys: role for roles in (CILIUM_ROLES, ROLES) for role, keys in roles.items()}


@dataclass(frozen=True, slots=True)
class Difference:
    """One field in which a rule and what was tried differ. `got` None: it is missing; `wanted` None: anything of it.

    Fields: method, path, host, `header NAME`, secret; name; API, version, client ID, topic; port, peer, `label KEY`.
    Not `seen`: it may differ or not, for whoever asks does not know what was sent.
    """

    field: str
    wanted: str | None
    got: str | None
    seen: bool = True

    def __str__(self) -> str:
        if self.got is None:
            lack = "is missing" if self.seen else "was not seen"
            return f"{self.field} {lack}" + (f" (wanted: {self.wanted})" if self.wanted is not None else "")
        return f"{self.field} is {self.got}" + (f", not {self.wanted}" if self.wanted is not None else "")

    def to_dict(self) -> dict[str, str | None]:
        """Plain data."""
        return {"field": self.field, "wanted": self.wanted, "got": self.got}

    def redacted(self) -> Difference:
        """Without what may be a secret of who asked: a query string, a user in a host, the value of a header, the name
        that a client gives itself."""
        got = self.got
        if got is not None:
            if self.field == "path":
                before, mark, _ = got.partition("?")
                got = f"{before}?{REDACTED}" if mark else before
            elif self.field == "host":
                _, mark, host = got.rpartition("@")
                got = f"{REDACTED}@{host}" if mark else got
            elif self.field.startswith("header ") or self.field == "client ID":
                got = REDACTED
        return self if got == self.got else replace(self, got=got)


@dataclass(frozen=True, slots=True)
class Nearest:
    """The rule that came nearest to allowing it: its clauses, the L7 rule if it is one, and what differs.

    `others`: how many more rules differ in no more fields.
    """

    origins: tuple[Origin, ...]
    differs: tuple[Difference, ...]
    rule: L7Rule | None = None
    others: int = 0

    def __str__(self) -> str:
        """One line: which rule, what of it, and every field that differs."""
        who = ", ".join(map(str, self.origins)) or "a rule"
        what = f" ({rule_in_words(self.rule)})" if self.rule is not None else ""
        return one_line(f"{who}{what}: {'; '.join(map(str, self.differs))}")

    def redacted(self) -> Nearest:
        """The same, to be shown to others than who asked."""
        return replace(self, differs=tuple(difference.redacted() for difference in self.differs))

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        plain: dict[str, Any] = {"by": [origin_to_dict(origin) for origin in self.origins]}
        if self.rule is not None:
            plain[self.rule.parser.value] = rule_to_dict(self.rule)
        return plain | {"differs": [difference.to_dict() for difference in self.differs], "others": self.others}


def origin_to_dict(origin: Origin) -> dict[str, str]:
    """The object and the field in it."""
    return {"kind": origin.kind, "namespace": origin.namespace, "name": origin.name, "path": origin.path}


def rule_to_dict(rule: L7Rule) -> dict[str, Any]:
    """What the rule asks for; fields that may be anything are left out."""
    match rule:
        case DnsRule() | TlsRule():
            return {"pattern" if rule.pattern else "name": name_of(rule)}
        case KafkaRule():
            role = _ROLES.get(rule.api_keys, "")
            apis = [] if role else [api_of(key) for key in rule.api_keys]
            fields = {"role": role, "apis": apis, "client_id": rule.client_id, "topic": rule.topic}
            version = {} if rule.api_version is None else {"version": rule.api_version}
            return {name: value for name, value in fields.items() if value} | version
        case HttpRule():
            asked = {"method": rule.method, "path": rule.path, "host": rule.host}
            headers = [header_in_words(header) for header in rule.headers]
            return {name: value for name, value in (asked | {"headers": headers}).items() if value}


def name_of(rule: DnsRule | TlsRule) -> str:
    """The name or the pattern as people write it: without the trailing dot, but for the root, and for one label."""
    written = rule.pattern or rule.name or "."
    return written if written in (".", "*.") else written.removesuffix(".")


def apis_in_words(keys: tuple[int, ...]) -> str:
    """The role that stands for them, or their names."""
    role = _ROLES.get(keys)
    return f"role {role}" if role else ", ".join(map(api_of, keys))


def rule_in_words(rule: L7Rule) -> str:
    """`POST /v1/request-landing host a\\.example with X-Key: 1`; `name example.com`; `role produce topic plans`; or, of
    what asks for nothing in particular, `any request`."""
    return one_line(" ".join(filter(None, _words(rule)))) or "any request"


def _words(rule: L7Rule) -> Iterable[str]:
    match rule:
        case DnsRule() | TlsRule():
            return ("pattern" if rule.pattern else "name", name_of(rule))
        case KafkaRule():
            return (
                apis_in_words(rule.api_keys),
                f"version {rule.api_version}" if rule.api_version is not None else "",
                f"client {rule.client_id}" if rule.client_id else "",
                f"topic {rule.topic}" if rule.topic else "",
            )
        case HttpRule():
            headers = (f"with {header_in_words(header)}" for header in rule.headers)
            return (rule.method, rule.path, f"host {rule.host}" if rule.host else "", *headers)


def header_in_words(header: HeaderMatch) -> str:
    """As a header would be sent; only the name where any value will do. A secret is not shown."""
    return header.name if header.value is None else f"{header.name}: {header.value}"

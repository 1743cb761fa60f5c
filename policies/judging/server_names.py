"""Which servers, by the name in a ClientHello (SNI), a TLS rule selects: those whose names its toFQDNs select. Pure."""

from __future__ import annotations

from policies.dns_patterns import bare_regex
from policies.ir import TlsRule


def literal_of(rule: TlsRule) -> str:
    """The one name that it selects, in lower case without the dot at the end; "" of a pattern, and of the root, which
    no server has."""
    return "" if rule.pattern else rule.name.removesuffix(".")


def regex_of(rule: TlsRule) -> str:
    """RE2, full match, of the names in lower case that a pattern selects, with a dot at their end or without."""
    return f"{bare_regex(rule.pattern)}[.]?"

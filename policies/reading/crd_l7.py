"""What Cilium enforces at layer 7 and this project does not: checked as Cilium does, then refused.

Generic parsers (l7proto), TLS contexts, server names, custom listeners (facts 1.2, 1.3).
Each reader reports what Cilium refuses, and that the field is not enforced here. Pure.
"""

from __future__ import annotations

from typing import Final

from policies.errors import Reason
from policies.reading.dns_names import server_name_fault
from policies.reading.fields import Findings, Path, Raw, Schema, integer, items, mapping, strings, submap, text

_TLS: Final = Schema.of("secret", "trustedCA", "certificate", "privateKey")
_SECRET: Final = Schema.of("namespace", "name")
_LISTENER: Final = Schema.of("envoyConfig", "name", "priority")
_ENVOY_CONFIG: Final = Schema.of("kind", "name")
_ENVOY_CONFIG_KINDS: Final = ("CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig")
_LISTENER_PRIORITIES: Final = range(1, 101)
_NEVER: Final = "it is not enforced here: remove the field"


def check_generic(raw: Raw, path: Path, findings: Findings) -> None:
    """l7proto and l7: key-value rules for a parser of Cilium's proxylib."""
    parser = text(raw, "l7proto", path, findings)
    rules = items(raw, "l7", path, findings)
    for i, item in enumerate(rules):
        here = (path / "l7")[i]
        pairs = mapping(item, here, findings)
        if pairs is not None and "" in strings(pairs, here, findings):
            findings.add(here, Reason.INVALID, "an empty key is not allowed")
    if rules and not parser:
        findings.add(path / "l7", Reason.MISSING, "'l7' may only be specified when a 'l7proto' is also specified")
    for field in ("l7proto", "l7"):
        if raw.get(field):
            findings.ours(path / field, Reason.NOT_SUPPORTED, _NEVER)


def check_tls(raw: Raw, name: str, path: Path, findings: Findings) -> None:
    """terminatingTLS or originatingTLS."""
    if raw.get(name) is None:
        return
    where = path / name
    context = submap(raw, name, path, findings)
    _TLS.check(context, where, findings)
    for field in ("trustedCA", "certificate", "privateKey"):
        text(context, field, where, findings)
    secret = submap(context, "secret", where, findings)
    _SECRET.check(secret, where / "secret", findings)
    text(secret, "namespace", where / "secret", findings)
    text(secret, "name", where / "secret", findings)
    if context.get("secret") is None or secret.get("name") is None:
        findings.add(where / "secret", Reason.MISSING, "say which Secret has the certificates")
    findings.ours(where, Reason.NOT_SUPPORTED, _NEVER)


def check_server_names(raw: Raw, path: Path, findings: Findings) -> None:
    """serverNames: a set of names of TLS servers."""
    if raw.get("serverNames") is None:
        return
    where = path / "serverNames"
    names = items(raw, "serverNames", path, findings)
    seen = set()
    for i, name in enumerate(names):
        if not isinstance(name, str):
            findings.add(where[i], Reason.WRONG_TYPE, "must be a string")
        elif fault := server_name_fault(name):
            findings.add(where[i], Reason.BAD_NAME, fault)
        elif name in seen:
            findings.add(where[i], Reason.INVALID, f'"{name}" is in the list twice')
        else:
            seen.add(name)
    if not names:
        findings.add(where, Reason.EMPTY, "name at least one server, or leave the field out")
    findings.ours(where, Reason.NOT_SUPPORTED, _NEVER)


def check_listener(raw: Raw, path: Path, findings: Findings) -> None:
    """listener: one of a CiliumEnvoyConfig."""
    if raw.get("listener") is None:
        return
    where = path / "listener"
    listener = submap(raw, "listener", path, findings)
    _LISTENER.check(listener, where, findings)
    config = submap(listener, "envoyConfig", where, findings)
    _ENVOY_CONFIG.check(config, where / "envoyConfig", findings)
    for here, inside in ((where, listener), (where / "envoyConfig", config)):
        if not text(inside, "name", here, findings):
            findings.add(here / "name", Reason.MISSING, "must be named")
    kind = text(config, "kind", where / "envoyConfig", findings)
    if config.get("kind") is not None and kind not in _ENVOY_CONFIG_KINDS:
        findings.add(where / "envoyConfig" / "kind", Reason.INVALID, f"is none of {', '.join(_ENVOY_CONFIG_KINDS)}")
    priority = integer(listener, "priority", where, findings)
    if priority is not None and priority not in _LISTENER_PRIORITIES:
        findings.add(where / "priority", Reason.INVALID, "is not within 1..100")
    findings.ours(where, Reason.NOT_SUPPORTED, _NEVER)

"""What clashes: facts of a node -> checks, each with what to do. Pure.

A clash is whatever takes a pod's packet past our programs, gives our marks another meaning, or sends what is redirected
elsewhere than to the proxy (docs/architecture.md, section B).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from agent.doctoring.facts import Facts
from bpf.features import Check, State

MARKS: Final = 0xF00  # bits of the packet mark that are Deflector's
TABLE: Final = 2004
OWN_TABLE: Final = ("inet", "deflector")
_NAMED_MAX: Final = 3


def judge(facts: Facts, proxy_ports: tuple[int, int], agent_is_here: bool) -> list[Check]:
    """Every check, in the order in which a person should look at them."""
    return [
        _cilium(facts),
        _programs(facts),
        _rules(facts),
        _table(facts),
        _marks(facts),
        _input(facts),
        _zones(facts),
        _rp_filter(facts),
        _ports(facts, proxy_ports, agent_is_here),
    ]


def _cilium(facts: Facts) -> Check:
    found = [name for name in facts.interfaces if name.startswith("cilium_")] + list(facts.cilium)
    if not found:
        return Check("Cilium", State.OK, "does not run here")
    words = "two agents would redirect the same pods: remove one of them"
    return Check("Cilium", State.MISSING, f"runs here, or has left {_some(found)}", words)


def _programs(facts: Facts) -> Check:
    found = [f"{one.interface} {hook}: {name}" for one in facts.others for hook, name in one.filters]
    if not found:
        return Check("programs on veths", State.OK, "none but ours")
    words = "what runs before ours (TCX always does) may take packets past policies: remove it, or know what it does"
    return Check("programs on veths", State.MISSING, _some(found), words)


def _rules(facts: Facts) -> Check:
    if facts.rules is None:
        return _unknown("policy routing", "ip", "iproute2")
    found = [
        f"rule {rule.get('priority')}: fwmark {rule['fwmark']}/{rule.get('fwmask', '0xffffffff')}"
        for rule in facts.rules
        if "fwmark" in rule and str(rule.get("table")) != str(TABLE) and _bits(rule) & MARKS
    ]
    if not found:
        return Check("policy routing", State.OK, f"no rule looks at marks {MARKS:#x}")
    words = f"bits {MARKS:#x} of the mark are ours: give these rules other bits"
    return Check("policy routing", State.MISSING, _some(found), words)


def _table(facts: Facts) -> Check:
    name = f"routing table {TABLE}"
    foreign = [str(route.get("dst")) for route in facts.routes or () if route.get("type") != "local"]
    if not foreign:
        return Check(name, State.OK, "nobody else's")
    return Check(
        name, State.MISSING, f"has routes of others: {_some(foreign)}", "it must be ours alone: move these routes"
    )


def _marks(facts: Facts) -> Check:
    if facts.tables is None and facts.marks is None:
        return _unknown("firewall's marks", "nft", "nftables")
    found = [f"iptables sets {value:#x}/{mask:#x}" for value, mask in facts.marks or () if (value | mask) & MARKS != 0
             and mask & MARKS]  # fmt: skip
    found += [f"{where} sets {value:#x}" for where, value in _nft_marks(facts.tables or ()) if value & MARKS]
    if not found:
        return Check("firewall's marks", State.OK, f"no rule sets bits {MARKS:#x}")
    words = f"packets with bits {MARKS:#x} of the mark pass policies: set other bits"
    return Check("firewall's marks", State.MISSING, _some(found), words)


def _input(facts: Facts) -> Check:
    closed = [
        f"{chain.get('family')} {chain.get('table')} {chain.get('name')}"
        for chain in _chains(facts.tables or ())
        if chain.get("hook") == "input" and chain.get("policy") == "drop"
    ]
    if not closed:
        return Check("firewall's input", State.OK, "accepts by default")
    words = "let it accept mark 0x200/0xf00: that is what is redirected to the proxy"
    return Check("firewall's input", State.UNKNOWN, f"{_some(closed)} drops by default", words)


def _zones(facts: Facts) -> Check:
    if not facts.zones and not any("ct" in text and "zone" in text for text in _rule_texts(facts.tables or ())):
        return Check("connection tracking", State.OK, "no zones")
    words = "redirected packets are not tracked, all others are: see that both ways of a connection get the same zone"
    return Check("connection tracking", State.UNKNOWN, "some rule puts connections into zones", words)


def _rp_filter(facts: Facts) -> Check:
    strict = [name for name, value in facts.rp_filter.items() if value == "1"]
    if not strict:
        return Check("reverse path filter", State.OK, "not strict")
    # Ours relaxes it on its own device; on pods' veths a host route is the way back, and strict is fine.
    return Check("reverse path filter", State.OK, f"strict on {_some(strict)}: ours is relaxed on its own device")


def _ports(facts: Facts, span: tuple[int, int], agent_is_here: bool) -> Check:
    first, last = span
    taken = sorted(port for port in facts.listening if first <= port <= last)
    if not taken or agent_is_here:
        return Check("proxy ports", State.OK, f"{first}-{last} are free" if not taken else "an agent uses them")
    words = "they are left out; with many of them choose another range with --proxy-ports"
    return Check("proxy ports", State.UNKNOWN, f"somebody listens at {_some(map(str, taken))}", words)


def _bits(rule: Mapping[str, Any]) -> int:
    return int(str(rule.get("fwmask", "0xffffffff")), 0)


def _chains(tables: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for one in tables:
        chain = one.get("chain")
        if isinstance(chain, dict) and (chain.get("family"), chain.get("table")) != OWN_TABLE:
            yield chain


def _foreign_rules(tables: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    for one in tables:
        rule = one.get("rule")
        if isinstance(rule, dict) and (rule.get("family"), rule.get("table")) != OWN_TABLE:
            yield rule


def _rule_texts(tables: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for rule in _foreign_rules(tables):
        for part in rule.get("expr") or ():
            mangled = part.get("mangle") if isinstance(part, dict) else None
            if isinstance(mangled, dict):
                yield str(mangled.get("key"))


def _nft_marks(tables: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, int]]:
    """Where a rule of nftables sets the packet mark, and the bits that it may set."""
    for rule in _foreign_rules(tables):
        for part in rule.get("expr") or ():
            mangled = part.get("mangle") if isinstance(part, dict) else None
            if isinstance(mangled, dict) and mangled.get("key") == {"meta": {"key": "mark"}}:
                where = f"{rule.get('family')} {rule.get('table')} {rule.get('chain')}"
                yield where, _value(mangled.get("value"))


def _value(written: object) -> int:
    """The bits that an expression may leave set beyond those that were: of `mark & x | y`, y."""
    if isinstance(written, int):
        return written
    if isinstance(written, dict):
        for name in ("|", "^"):
            if isinstance(written.get(name), list):
                return max((part for part in written[name] if isinstance(part, int)), default=MARKS)
        if "&" in written:
            return 0
    return MARKS  # not to be told: of a map, say


def _some(found: Any) -> str:
    names = list(found)
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    return ", ".join(names[:_NAMED_MAX]) + more


def _unknown(name: str, tool: str, package: str) -> Check:
    return Check(name, State.UNKNOWN, f"'{tool}' is missing or fails", f"install {package}, and run this as root")

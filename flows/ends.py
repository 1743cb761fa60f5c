"""Filters by who is at the ends of a flow: addresses, names, labels, ports. Pure.

Each function compiles the values of a field; `side` is "source" or "destination".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from flow import flow_pb2

from flows.gotext import quoted
from flows.patterns import address, name_pattern, network, node_pattern, regexes, within
from flows.predicates import FilterError, Predicate, parsed
from flows.selectors import SelectorError, parse_selector, selects

PORT = re.compile(r"[0-9]+\Z")
EMPTY_NAME = "invalid filter, name must not be empty"


def identities(side: str) -> Callable[[Any], Predicate]:
    """Exactly one of these; an end that is not there has none."""

    def compiled(values: Any) -> Predicate:
        wanted = frozenset(values)
        return lambda flow: flow.HasField(side) and getattr(flow, side).identity in wanted

    return compiled


def clusters(side: str) -> Callable[[Any], Predicate]:
    """Exactly one of these names."""

    def compiled(values: Any) -> Predicate:
        wanted = frozenset(values)
        if "" in wanted:
            raise FilterError(EMPTY_NAME)
        return lambda flow: getattr(flow, side).cluster_name in wanted

    return compiled


def ips(field: str) -> Callable[[Any], Predicate]:
    """Addresses as text, or prefixes; `field` is one of IP."""
    get = attrgetter(f"IP.{field}")

    def compiled(values: Any) -> Predicate:
        addresses = frozenset(parsed(address, value) for value in values if "/" not in value)
        networks = [parsed(network, value) for value in values if "/" in value]

        def matches(flow: flow_pb2.Flow) -> bool:
            ip = get(flow)
            return bool(ip) and (ip in addresses or (bool(networks) and within(ip, networks)))

        return matches

    return compiled


def namespaced(part: str, name_field: str) -> Callable[[Any], Predicate]:
    """`ns/prefix`, `/prefix`, `ns/`, `/`; without a slash the namespace is "default"."""
    get = attrgetter(part)
    which = f"invalid {part.replace('_', ' ')} filter: " if name_field == "name" else ""  # as Hubble words it

    def compiled(values: Any) -> Predicate:
        wanted = []
        for value in values:
            if not value:
                raise FilterError(which + EMPTY_NAME)
            namespace, slash, prefix = value.partition("/")
            wanted.append((namespace, prefix) if slash else ("default", value))

        def matches(flow: flow_pb2.Flow) -> bool:
            who = get(flow)
            name = getattr(who, name_field)
            if not name and not who.namespace:
                return False
            return any(name.startswith(prefix) and namespace in ("", who.namespace) for namespace, prefix in wanted)

        return matches

    return compiled


def workloads(side: str) -> Callable[[Any], Predicate]:
    """Kind and name, of which either may be left empty."""

    def compiled(values: Any) -> Predicate:
        wanted = [(value.name, value.kind) for value in values]
        return lambda flow: any(
            name in ("", workload.name) and kind in ("", workload.kind)
            for workload in getattr(flow, side).workloads
            for name, kind in wanted
        )

    return compiled


def labels(get: Callable[[flow_pb2.Flow], Sequence[str]], whose: str) -> Callable[[Any], Predicate]:
    """Kubernetes selectors; `get` takes the labels out of a flow, `whose` stands in errors."""

    def compiled(values: Any) -> Predicate:
        try:
            selectors = [parse_selector(value) for value in values]
        except SelectorError as error:
            raise FilterError(f"invalid {whose} label filter: {error}") from None

        def matches(flow: flow_pb2.Flow) -> bool:
            labels = get(flow)
            return any(selects(selector, labels) for selector in selectors)

        return matches

    return compiled


def fqdns(field: str) -> Callable[[Any], Predicate]:
    """Patterns of DNS names, of which one fits one name."""

    def compiled(values: Any) -> Predicate:
        patterns = regexes([parsed(name_pattern, value) for value in values])
        return lambda flow: any(pattern.fullmatch(name) for name in getattr(flow, field) for pattern in patterns)

    return compiled


def node_names(values: Any) -> Predicate:
    """Patterns `[cluster/]node`."""
    patterns = regexes([parsed(node_pattern, value) for value in values])

    def matches(flow: flow_pb2.Flow) -> bool:
        name = flow.node_name
        full = name if "/" in name else f"default/{name}"
        return bool(name) and any(pattern.fullmatch(full) for pattern in patterns)

    return matches


def ports(field: str) -> Callable[[Any], Predicate]:
    """Of TCP, UDP and SCTP; `field` is that of the protocol."""

    def compiled(values: Any) -> Predicate:
        wanted = set()
        for value in values:
            if not PORT.match(value) or int(value) > 65535:
                raise FilterError(f"invalid {field.replace('_', ' ')} filter: invalid port {quoted(value)}")
            wanted.add(int(value))

        def matches(flow: flow_pb2.Flow) -> bool:
            protocol = flow.l4.WhichOneof("protocol")
            return protocol in ("TCP", "UDP", "SCTP") and getattr(getattr(flow.l4, protocol), field) in wanted

        return matches

    return compiled

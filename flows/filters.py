"""Which flows a reader wants: FlowFilter messages, compiled once per request into predicates. Pure.

Semantics are Hubble's (facts section 3): a flow passes if it matches a filter of the allowlist, or that is empty, and
none of the denylist. Within a filter every field must match; the values of one field are alternatives. A field that
is not supported is an error, never ignored: a filter that lets too much through is a leak.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any, TypeVar

from flow import flow_pb2
from google.protobuf.unknown_fields import UnknownFieldSet

from flows.build import EVENT_L7
from flows.cel import CHARS_MAX, CelError, compile_cel
from flows.gotext import quoted
from flows.patterns import address, name_pattern, network, node_pattern, path_of, regexes, remembered, within
from flows.selectors import SelectorError, parse_selector, selects

T = TypeVar("T")
Predicate = Callable[[flow_pb2.Flow], bool]

CONDITIONS_MAX = 1000  # values of all fields of a request's filters; each is compared with each flow
STATUS = re.compile(r"[1-5][0-9]{2}\Z")
STATUS_PREFIX = re.compile(r"[1-5][0-9]?\+\Z")
PORT = re.compile(r"[0-9]+\Z")
L4_PROTOCOLS = {
    "icmp": ("ICMPv4", "ICMPv6"),
    "icmpv4": ("ICMPv4",),
    "icmpv6": ("ICMPv6",),
    "igmp": ("IGMP",),
    "sctp": ("SCTP",),
    "tcp": ("TCP",),
    "udp": ("UDP",),
    "vrrp": ("VRRP",),
}
L7_PROTOCOLS = ("dns", "http", "kafka")
HTTP_FIELDS = {
    "http_status_code": "status code",
    "http_method": "method",
    "http_path": "path",
    "http_url": "url",
    "http_header": "headers",
}
EMPTY_NAME = "invalid filter, name must not be empty"


class FilterError(ValueError):
    """A filter that cannot be compiled; the text names the field."""


def compile_filters(allow: Sequence[flow_pb2.FlowFilter], deny: Sequence[flow_pb2.FlowFilter]) -> Predicate:
    """One predicate for both lists of a request. Raises FilterError."""
    check_size((*allow, *deny))
    allowed = [compile_filter(one) for one in allow]
    denied = [compile_filter(one) for one in deny]
    is_allowed, is_denied = any_of(allowed), any_of(denied)
    if not denied:
        return is_allowed if allowed else lambda flow: True
    return lambda flow: (not allowed or is_allowed(flow)) and not is_denied(flow)


def check_size(filters: Iterable[flow_pb2.FlowFilter]) -> None:
    """Raises FilterError for filters that would keep us busy."""
    count = chars = 0
    for one in filters:
        count += 1 + sum(len(values) for field, values in one.ListFields() if field.is_repeated)
        count += len(one.experimental.cel_expression)
        chars += sum(len(expression) for expression in one.experimental.cel_expression)
    if chars > CHARS_MAX:
        raise FilterError(f"the filters hold {chars} characters of CEL: more than {CHARS_MAX} are not looked at")
    if count > CONDITIONS_MAX:
        raise FilterError(f"the filters hold {count} conditions: more than {CONDITIONS_MAX} are not looked at")


def compile_filter(wanted: flow_pb2.FlowFilter) -> Predicate:
    """The predicate of one filter; an empty filter matches everything. Raises FilterError."""
    return all_of([predicate for _, predicate in predicates(wanted)])


def predicates(wanted: flow_pb2.FlowFilter) -> list[tuple[str, Predicate]]:
    """The fields of a filter, each by its name; every one must match. Raises FilterError."""
    _check_known(wanted)
    found = []
    for field, values in wanted.ListFields():
        for part in (values if field.is_repeated else [values]) if field.message_type is not None else ():
            _check_known(part)
        compiler = FIELDS.get(field.name)
        if compiler is None:
            raise FilterError(f"filtering by {field.name} is not supported")
        if field.name in HTTP_FIELDS and not _sees_l7(wanted.event_type):
            what = HTTP_FIELDS[field.name]
            raise FilterError(f"filtering by http {what} requires the event type filter to only match 'l7' events")
        found.append((field.name, compiler(values)))
    return found


def _check_known(part: Any) -> None:
    """A part of a filter with a field that we do not know means something that we would not do."""
    unknown = UnknownFieldSet(part)
    if len(unknown):
        raise FilterError(f"the filter has a field that this server does not know (number {unknown[0].field_number})")


def all_of(parts: Sequence[Predicate]) -> Predicate:
    """Everything must match."""
    return parts[0] if len(parts) == 1 else lambda flow: all(predicate(flow) for predicate in parts)


def any_of(parts: Sequence[Predicate]) -> Predicate:
    """Something must match."""
    return parts[0] if len(parts) == 1 else lambda flow: any(predicate(flow) for predicate in parts)


def _sees_l7(types: Iterable[flow_pb2.EventTypeFilter]) -> bool:
    kinds = [kind.type for kind in types]
    return not kinds or EVENT_L7 in kinds


def _parsed(parse: Callable[[str], T], value: str) -> T:
    try:
        return parse(value)
    except ValueError as error:
        raise FilterError(str(error)) from None


# Each of the following compiles the values of a field. `get` takes the compared part out of a flow.


def _one_of(get: Callable[[flow_pb2.Flow], Any]) -> Callable[[Any], Predicate]:
    def compiled(values: Any) -> Predicate:
        wanted = frozenset(values)
        return lambda flow: get(flow) in wanted

    return compiled


def _identities(side: str) -> Callable[[Any], Predicate]:
    def compiled(values: Any) -> Predicate:
        wanted = frozenset(values)
        return lambda flow: flow.HasField(side) and getattr(flow, side).identity in wanted

    return compiled


def _clusters(side: str) -> Callable[[Any], Predicate]:
    def compiled(values: Any) -> Predicate:
        wanted = frozenset(values)
        if "" in wanted:
            raise FilterError(EMPTY_NAME)
        return lambda flow: getattr(flow, side).cluster_name in wanted

    return compiled


def _ips(field: str) -> Callable[[Any], Predicate]:
    get = attrgetter(f"IP.{field}")

    def compiled(values: Any) -> Predicate:
        addresses = frozenset(_parsed(address, value) for value in values if "/" not in value)
        networks = [_parsed(network, value) for value in values if "/" in value]

        def matches(flow: flow_pb2.Flow) -> bool:
            ip = get(flow)
            return bool(ip) and (ip in addresses or (bool(networks) and within(ip, networks)))

        return matches

    return compiled


def _namespaced(part: str, name_field: str) -> Callable[[Any], Predicate]:
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


def _workloads(side: str) -> Callable[[Any], Predicate]:
    def compiled(values: Any) -> Predicate:
        wanted = [(value.name, value.kind) for value in values]
        return lambda flow: any(
            name in ("", workload.name) and kind in ("", workload.kind)
            for workload in getattr(flow, side).workloads
            for name, kind in wanted
        )

    return compiled


def _labels(get: Callable[[flow_pb2.Flow], Sequence[str]], whose: str) -> Callable[[Any], Predicate]:
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


def _fqdns(field: str) -> Callable[[Any], Predicate]:
    def compiled(values: Any) -> Predicate:
        patterns = regexes([_parsed(name_pattern, value) for value in values])
        return lambda flow: any(pattern.fullmatch(name) for name in getattr(flow, field) for pattern in patterns)

    return compiled


def _node_names(values: Any) -> Predicate:
    patterns = regexes([_parsed(node_pattern, value) for value in values])

    def matches(flow: flow_pb2.Flow) -> bool:
        name = flow.node_name
        full = name if "/" in name else f"default/{name}"
        return bool(name) and any(pattern.fullmatch(full) for pattern in patterns)

    return matches


def _protocols(values: Any) -> Predicate:
    l4: set[str] = set()
    l7: set[str] = set()
    for value in values:
        name = value.lower()
        if name in L4_PROTOCOLS:
            l4.update(L4_PROTOCOLS[name])
        elif name in L7_PROTOCOLS:
            l7.add(name)
        else:
            raise FilterError(f"invalid protocol filter: unknown protocol: {quoted(value)}")
    return lambda flow: flow.l4.WhichOneof("protocol") in l4 or flow.l7.WhichOneof("record") in l7


def _ports(field: str) -> Callable[[Any], Predicate]:
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


def _tcp_flags(values: Any) -> Predicate:
    wanted = [[field.name for field, on in flags.ListFields() if on] for flags in values]

    def matches(flow: flow_pb2.Flow) -> bool:
        if not flow.l4.TCP.HasField("flags"):
            return False
        flags = flow.l4.TCP.flags
        return any(all(getattr(flags, name) for name in names) for names in wanted)

    return matches


def _status_codes(values: Any) -> Predicate:
    full = frozenset(value for value in values if STATUS.match(value))
    prefixes = tuple(value[:-1] for value in values if STATUS_PREFIX.match(value))
    bad = [value for value in values if not STATUS.match(value) and not STATUS_PREFIX.match(value)]
    if bad:
        raise FilterError(f"invalid http status code filter: invalid status code prefix: {quoted(bad[0])}")

    # a code is written with three digits at least; numbers beyond them are nobody's status
    wanted = frozenset(code for code in range(1, 1000) if f"{code:03}" in full or f"{code:03}".startswith(prefixes))
    return lambda flow: flow.l7.http.code in wanted


def _methods(values: Any) -> Predicate:
    wanted = frozenset(value.casefold() for value in values)
    return lambda flow: bool(flow.l7.http.method) and flow.l7.http.method.casefold() in wanted


def _patterns(get: Callable[[flow_pb2.Flow], str | None], what: str) -> Callable[[Any], Predicate]:
    """RE2 patterns, unanchored; None from `get` never matches."""

    def compiled(values: Any) -> Predicate:
        try:
            patterns = regexes(values)
        except ValueError as error:
            raise FilterError(f"invalid {what} filter: {error}") from None
        found = remembered(lambda text: any(pattern.search(text) for pattern in patterns))

        def matches(flow: flow_pb2.Flow) -> bool:
            text = get(flow)
            return text is not None and found(text)

        return matches

    return compiled


def _url(flow: flow_pb2.Flow) -> str | None:
    return flow.l7.http.url or None


_known_path = remembered(path_of)


def _path(flow: flow_pb2.Flow) -> str | None:
    return _known_path(flow.l7.http.url)


def _dns_query(flow: flow_pb2.Flow) -> str | None:
    return flow.l7.dns.query if flow.l7.HasField("dns") else None


def _headers(values: Any) -> Predicate:
    wanted = frozenset((value.key, value.value) for value in values)
    return lambda flow: any((header.key, header.value) in wanted for header in flow.l7.http.headers)


def _experimental(wanted: Any) -> Predicate:
    if not wanted.cel_expression:
        return lambda flow: True
    try:
        return compile_cel(wanted.cel_expression)
    except CelError as error:
        raise FilterError(str(error)) from None


def _drop_reasons(values: Any) -> Predicate:
    wanted = frozenset(values)
    return lambda flow: flow.verdict == flow_pb2.DROPPED and flow.drop_reason_desc in wanted


def _event_types(values: Any) -> Predicate:
    wanted = [(value.type, value.sub_type if value.match_sub_type else None) for value in values]

    def matches(flow: flow_pb2.Flow) -> bool:
        event = flow.event_type
        return flow.HasField("event_type") and any(
            kind in (0, event.type) and sub_type in (None, event.sub_type) for kind, sub_type in wanted
        )

    return matches


def _replies(values: Any) -> Predicate:
    """Unknown matches nothing, but a dropped flow counts as no reply: Hubble's UI relies on it."""
    wanted = frozenset(values)

    def matches(flow: flow_pb2.Flow) -> bool:
        known = flow.HasField("is_reply") or flow.verdict == flow_pb2.DROPPED
        return known and flow.is_reply.value in wanted

    return matches


def _interfaces(values: Any) -> Predicate:
    wanted = [(value.index, value.name) for value in values]
    return lambda flow: (
        flow.HasField("interface")
        and any(index in (0, flow.interface.index) and name in ("", flow.interface.name) for index, name in wanted)
    )


FIELDS: dict[str, Callable[[Any], Predicate]] = {
    "uuid": _one_of(attrgetter("uuid")),
    "verdict": _one_of(attrgetter("verdict")),
    "traffic_direction": _one_of(attrgetter("traffic_direction")),
    "ip_version": _one_of(attrgetter("IP.ipVersion")),
    "trace_id": _one_of(attrgetter("trace_context.parent.trace_id")),
    "ip_trace_id": _one_of(attrgetter("ip_trace_id.trace_id")),
    "encrypted": _one_of(attrgetter("IP.encrypted")),
    "drop_reason_desc": _drop_reasons,
    "event_type": _event_types,
    "reply": _replies,
    "interface": _interfaces,
    "protocol": _protocols,
    "tcp_flags": _tcp_flags,
    "source_ip_xlated": _ips("source_xlated"),
    "node_name": _node_names,
    "node_labels": _labels(attrgetter("node_labels"), "node"),
    "dns_query": _patterns(_dns_query, "DNS query"),
    "http_status_code": _status_codes,
    "http_method": _methods,
    "http_path": _patterns(_path, "http path"),
    "http_url": _patterns(_url, "http url"),
    "http_header": _headers,
    "experimental": _experimental,
}
for _side in ("source", "destination"):
    FIELDS |= {
        f"{_side}_ip": _ips(_side),
        f"{_side}_pod": _namespaced(_side, "pod_name"),
        f"{_side}_service": _namespaced(f"{_side}_service", "name"),
        f"{_side}_label": _labels(attrgetter(f"{_side}.labels"), _side),
        f"{_side}_workload": _workloads(_side),
        f"{_side}_identity": _identities(_side),
        f"{_side}_cluster_name": _clusters(_side),
        f"{_side}_fqdn": _fqdns(f"{_side}_names"),
        f"{_side}_port": _ports(f"{_side}_port"),
    }

"""Which flows a reader wants: FlowFilter messages, compiled once per request into predicates. Pure.

Semantics are Hubble's (facts section 3): a flow passes if it matches a filter of the allowlist, or that is empty, and
none of the denylist. Within a filter every field must match; the values of one field are alternatives. A field that
is not supported is an error, never ignored: a filter that lets too much through is a leak.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from flow import flow_pb2
from google.protobuf.unknown_fields import UnknownFieldSet

from flows import ends
from flows.build import EVENT_L7
from flows.cel import CHARS_MAX, CelError, compile_cel
from flows.gotext import quoted
from flows.patterns import path_of, regexes, remembered
from flows.predicates import FilterError, Predicate, all_of, any_of

CONDITIONS_MAX = 1000  # values of all fields of a request's filters; each is compared with each flow
STATUS = re.compile(r"[1-5][0-9]{2}\Z")
STATUS_PREFIX = re.compile(r"[1-5][0-9]?\+\Z")
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


def _sees_l7(types: Iterable[flow_pb2.EventTypeFilter]) -> bool:
    kinds = [kind.type for kind in types]
    return not kinds or EVENT_L7 in kinds


# Each of the following compiles the values of a field. `get` takes the compared part out of a flow.


def _one_of(get: Callable[[flow_pb2.Flow], Any]) -> Callable[[Any], Predicate]:
    def compiled(values: Any) -> Predicate:
        wanted = frozenset(values)
        return lambda flow: get(flow) in wanted

    return compiled


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
    "source_ip_xlated": ends.ips("source_xlated"),
    "node_name": ends.node_names,
    "node_labels": ends.labels(attrgetter("node_labels"), "node"),
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
        f"{_side}_ip": ends.ips(_side),
        f"{_side}_pod": ends.namespaced(_side, "pod_name"),
        f"{_side}_service": ends.namespaced(f"{_side}_service", "name"),
        f"{_side}_label": ends.labels(attrgetter(f"{_side}.labels"), _side),
        f"{_side}_workload": ends.workloads(_side),
        f"{_side}_identity": ends.identities(_side),
        f"{_side}_cluster_name": ends.clusters(_side),
        f"{_side}_fqdn": ends.fqdns(f"{_side}_names"),
        f"{_side}_port": ends.ports(f"{_side}_port"),
    }

"""The options of `observe` -> GetFlowsRequest, as the hubble command line makes it (facts section 3). Pure.

Filter options come as a list in the order in which they were typed, since `--not` turns the next one around. An
option about both ends (`--pod`) gives two filters, one per end, of which one must match; an option about one end
(`--from-pod`), and everything else, goes into both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flow import flow_pb2
from observer import observer_pb2

from flows.gotime import parse_time
from flows.words import AGENT_NOTIFICATIONS, EVENT_TYPES, OBSERVATION_POINTS, RESERVED_IDENTITIES

LAST_DEFAULT = 20
SUB_TYPES = {EVENT_TYPES["trace"]: OBSERVATION_POINTS, EVENT_TYPES["agent"]: AGENT_NOTIFICATIONS}
NUMBER_ALL = 2**64 - 1
IP_VERSIONS = {
    **dict.fromkeys(("4", "v4", "ipv4", "ip4"), flow_pb2.IPv4),
    **dict.fromkeys(("6", "v6", "ipv6", "ip6"), flow_pb2.IPv6),
}
# Options of which at most one may be used (of several in a row).
CONFLICTS = tuple(
    tuple(group.split())
    for group in (
        "from-fqdn from-ip ip fqdn from-namespace namespace from-all-namespaces all-namespaces",
        "from-fqdn from-ip ip fqdn from-pod pod",
        "to-fqdn to-ip ip fqdn to-namespace namespace to-all-namespaces all-namespaces",
        "to-fqdn to-ip ip fqdn to-pod pod",
        "to-pod namespace all-namespaces",
        "from-pod namespace all-namespaces",
        "to-service namespace all-namespaces",
        "from-service namespace all-namespaces",
        "label from-label",
        "label to-label",
        "service from-service",
        "service to-service",
        "port to-port",
        "port from-port",
        "identity to-identity",
        "identity from-identity",
        "workload to-workload",
        "workload from-workload",
        "encrypted unencrypted",
    )
)


class OptionError(ValueError):
    """An option or a combination of them that makes no request; one line for the user."""


@dataclass(frozen=True, slots=True)
class FilterOption:
    """One filter option as typed: `--not --to-port 80` is FilterOption("to-port", "80", negated=True)."""

    name: str
    value: str = ""
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What `observe` was asked for. `last` and `first` are 0 where they were not given."""

    filters: Sequence[FilterOption] = ()
    follow: bool = False
    last: int = 0
    first: int = 0
    all: bool = False
    since: str = ""
    until: str = ""
    field_mask: Sequence[str] = ()
    from_file: bool = False  # responses are read from a file: without a number all of them


def build_request(options: Options, now_ns: int) -> observer_pb2.GetFlowsRequest:
    """The request for these options. Raises OptionError or TimeError."""
    _check_selection(options)
    request = observer_pb2.GetFlowsRequest(follow=options.follow, first=options.first > 0)
    if options.since:
        request.since.CopyFrom(parse_time(options.since, now_ns))
    if options.until and not options.follow:
        request.until.CopyFrom(parse_time(options.until, now_ns))
    request.number = options.first or _last(options, request)
    request.whitelist.extend(_filters([option for option in options.filters if not option.negated]))
    request.blacklist.extend(_filters([option for option in options.filters if option.negated]))
    if options.field_mask:
        request.field_mask.paths.extend(options.field_mask)
    return request


def _check_selection(options: Options) -> None:
    for name, one, other_name, other in (
        ("first", options.first, "last", options.last),
        ("first", options.first, "all", options.all),
        ("first", options.first, "follow", options.follow),
        ("last", options.last, "all", options.all),
    ):
        if one and other:
            raise OptionError(f"cannot set both --{name} and --{other_name}")


def _last(options: Options, request: observer_pb2.GetFlowsRequest | observer_pb2.GetAgentEventsRequest) -> int:
    """Without a time and a number it is the last 20, or nothing of the past when following."""
    if request.HasField("since") or request.HasField("until"):
        return options.last
    if options.all:
        return NUMBER_ALL
    return options.last or (0 if options.follow or options.from_file else LAST_DEFAULT)


def build_events_request(options: Options, now_ns: int) -> observer_pb2.GetAgentEventsRequest:
    """The same for agent events, of which none are filtered. Raises OptionError or TimeError."""
    _check_selection(options)
    request = observer_pb2.GetAgentEventsRequest(follow=options.follow, first=options.first > 0)
    if options.since:
        request.since.CopyFrom(parse_time(options.since, now_ns))
    if options.until and not options.follow:
        request.until.CopyFrom(parse_time(options.until, now_ns))
    request.number = options.first or _last(options, request)
    return request


@dataclass
class _Pair:
    """Two filters in the making: what is said of the source's end, and of the destination's."""

    left: flow_pb2.FlowFilter = field(default_factory=flow_pb2.FlowFilter)
    right: flow_pb2.FlowFilter = field(default_factory=flow_pb2.FlowFilter)
    namespaces: list[str] = field(default_factory=list)
    source_namespaces: list[str] = field(default_factory=list)
    destination_namespaces: list[str] = field(default_factory=list)


def _filters(options: Sequence[FilterOption]) -> list[flow_pb2.FlowFilter]:
    if not options:
        return []
    used = [option.name for option in options]
    for group in CONFLICTS:
        clash = [name for name in group if name in used]
        if len(clash) > 1:
            raise OptionError(f"filters --{clash[0]} and --{clash[1]} cannot be combined")
    pair = _Pair()
    for option in options:
        setter = SETTERS.get(option.name)
        if setter is None:
            raise OptionError(f"there is no filter --{option.name}")
        setter(pair, option.value)
    _check_namespaces(pair)
    for one in (pair.left, pair.right):
        _add_namespaces(one, "destination", pair.destination_namespaces)
        _add_namespaces(one, "source", pair.source_namespaces)
    _add_namespaces(pair.left, "source", pair.namespaces)
    _add_namespaces(pair.right, "destination", pair.namespaces)
    return [pair.left] if pair.left == pair.right else [pair.left, pair.right]


def _add_namespaces(one: flow_pb2.FlowFilter, side: str, namespaces: Sequence[str]) -> None:
    """Put the namespaces before the names that have none; without names they stand for all of their pods."""
    if not namespaces:
        return
    pods, services = getattr(one, f"{side}_pod"), getattr(one, f"{side}_service")
    if not pods and not services:
        pods.append("")
    for names in (pods, services):
        named = [
            full for name in names for full in ([name] if "/" in name else [f"{space}/{name}" for space in namespaces])
        ]
        del names[:]
        names.extend(named)


def _check_namespaces(pair: _Pair) -> None:
    for one in (pair.left, pair.right):
        for side in SIDES:
            _check_services(getattr(one, f"{side}_pod"), getattr(one, f"{side}_service"))
        sides = {side: (*getattr(one, f"{side}_pod"), *getattr(one, f"{side}_service")) for side in SIDES}
        both = (*sides["source"], *sides["destination"])
        for spaces, names in (
            (pair.namespaces, both),
            (pair.source_namespaces, sides["source"]),
            (pair.destination_namespaces, sides["destination"]),
        ):
            for space in spaces:
                for name in names:
                    own, slash, _ = name.partition("/")
                    if slash and own not in ("", space):
                        raise OptionError(f'namespace conflict: "{space}" does not contain "{name}"')


def _check_services(pods: Sequence[str], services: Sequence[str]) -> None:
    """One end cannot be a pod of one namespace and a service of another."""
    for pod in pods:
        space, slash, _ = pod.partition("/")
        for service in services:
            if slash and space and service.partition("/")[0] != space:
                raise OptionError(f'namespace of service "{service}" conflict with pod "{space}"')


SIDES = ("source", "destination")
Setter = Callable[[_Pair, str], None]
Parser = Callable[[str], Any]


def _as_is(value: str) -> str:
    return value


def _append(one: flow_pb2.FlowFilter, name: str, value: Any) -> None:
    getattr(one, name).append(value)


def _ends(name: str, parse: Parser = _as_is) -> dict[str, Setter]:
    """Three options: about either end, about the source, about the destination. `name` is the field's last part."""
    option = name.replace("_", "-")

    def either(pair: _Pair, value: str) -> None:
        parsed = parse(value)
        _append(pair.left, f"source_{name}", parsed)
        _append(pair.right, f"destination_{name}", parsed)

    def one_end(side: str) -> Setter:
        return _both(f"{side}_{name}", parse)

    return {option: either, f"from-{option}": one_end("source"), f"to-{option}": one_end("destination")}


def _both(field_name: str, parse: Parser = _as_is) -> Setter:
    """An option that goes into both filters."""

    def setter(pair: _Pair, value: str) -> None:
        parsed = parse(value)
        _append(pair.left, field_name, parsed)
        _append(pair.right, field_name, parsed)

    return setter


def _space(attribute: str, value: str | None = None) -> Setter:
    """A namespace option; with `value` set it is the one for all namespaces."""
    return lambda pair, typed: getattr(pair, attribute).append(typed if value is None else value)


def _named(enum: Any, option: str) -> Parser:
    def parse(value: str) -> int:
        try:
            return int(enum.Value(value))
        except ValueError:
            raise OptionError(f"invalid --{option} value: {value}") from None

    return parse


def _identity(value: str) -> int:
    for number, name in RESERVED_IDENTITIES.items():
        if value == name and number:
            return number
    if not (value.isascii() and value.isdigit() and int(value) < 2**32):
        names = ", ".join(name for number, name in RESERVED_IDENTITIES.items() if number)
        raise OptionError(f"invalid security identity {value!r}, expected a number or one of {names}")
    return int(value)


def _workload(value: str) -> flow_pb2.Workload:
    """`name`, `Kind/name` or `Kind/`."""
    kind, slash, name = value.partition("/")
    return flow_pb2.Workload(kind=kind, name=name) if slash else flow_pb2.Workload(name=value)


def _header(value: str) -> flow_pb2.HTTPHeader:
    key, colon, text = value.partition(":")
    if not colon:
        raise OptionError(f"invalid http-header value {value!r}, expected name:value")
    return flow_pb2.HTTPHeader(key=key, value=text)


def _tcp_flags(value: str) -> flow_pb2.TCPFlags:
    flags = flow_pb2.TCPFlags()
    for name in value.split(","):
        if name.upper() not in flow_pb2.TCPFlags.DESCRIPTOR.fields_by_name:
            raise OptionError(f"unknown tcp flag: {name}")
        setattr(flags, name.upper(), True)
    return flags


def _direction(value: str) -> int:
    known = {"ingress": flow_pb2.INGRESS, "egress": flow_pb2.EGRESS}
    if value.lower() not in known:
        raise OptionError(f"{value.lower()}: invalid traffic direction, expected ingress or egress")
    return known[value.lower()]


def _trace_id(value: str) -> int:
    if not (value.isascii() and value.isdigit() and 0 < int(value) < 2**64):
        raise OptionError(f"invalid --ip-trace-id value {value!r}; must be a number greater than 0")
    return int(value)


def _event_type(value: str) -> flow_pb2.EventTypeFilter:
    """`l7`, `trace:to-proxy`, `129`, `4:1`."""
    kind, colon, sub = value.partition(":")
    wanted = flow_pb2.EventTypeFilter(type=EVENT_TYPES[kind] if kind in EVENT_TYPES else _number(kind, "type"))
    if colon:
        wanted.match_sub_type = True
        named: tuple[str, ...] = SUB_TYPES.get(wanted.type, ())
        wanted.sub_type = named.index(sub) if sub in named else _number(sub, "event sub-type")
    return wanted


def _number(value: str, what: str) -> int:
    if not (value.isascii() and value.isdigit() and int(value) < 2**31):
        names = ", ".join(EVENT_TYPES) if what == "type" else "trace:" + ", trace:".join(OBSERVATION_POINTS)
        raise OptionError(f"unable to parse {what} {value!r}: neither a number nor one of {names}")
    return int(value)


def _cel(pair: _Pair, value: str) -> None:
    for one in (pair.left, pair.right):
        one.experimental.cel_expression.append(value)


SETTERS: dict[str, Setter] = {
    **_ends("pod"),
    **_ends("ip"),
    **_ends("fqdn"),
    **_ends("label"),
    **_ends("service"),
    **_ends("port"),
    **_ends("identity", _identity),
    **_ends("workload", _workload),
    "cluster": _ends("cluster_name")["cluster-name"],
    "from-cluster": _both("source_cluster_name"),
    "to-cluster": _both("destination_cluster_name"),
    "namespace": _space("namespaces"),
    "from-namespace": _space("source_namespaces"),
    "to-namespace": _space("destination_namespaces"),
    "all-namespaces": _space("namespaces", ""),
    "from-all-namespaces": _space("source_namespaces", ""),
    "to-all-namespaces": _space("destination_namespaces", ""),
    "uuid": _both("uuid"),
    "snat-ip": _both("source_ip_xlated"),
    "ipv4": _both("ip_version", lambda value: flow_pb2.IPv4),
    "ipv6": _both("ip_version", lambda value: flow_pb2.IPv6),
    "ip-version": _both("ip_version", lambda value: IP_VERSIONS.get(value.lower(), flow_pb2.IP_NOT_USED)),
    "trace-id": _both("trace_id"),
    "ip-trace-id": _both("ip_trace_id", _trace_id),
    "verdict": _both("verdict", _named(flow_pb2.Verdict, "verdict")),
    "drop-reason-desc": _both("drop_reason_desc", _named(flow_pb2.DropReason, "drop-reason-desc")),
    "type": _both("event_type", _event_type),
    "protocol": _both("protocol"),
    "tcp-flags": _both("tcp_flags", _tcp_flags),
    "http-status": _both("http_status_code"),
    "http-method": _both("http_method"),
    "http-path": _both("http_path"),
    "http-url": _both("http_url"),
    "http-header": _both("http_header", _header),
    "node-name": _both("node_name"),
    "node-label": _both("node_labels"),
    "traffic-direction": _both("traffic_direction", _direction),
    "interface": _both("interface", lambda value: flow_pb2.NetworkInterface(name=value)),
    "encrypted": _both("encrypted", lambda value: True),
    "unencrypted": _both("encrypted", lambda value: False),
    "cel-expression": _cel,
}
# Options that take no value, and the short forms.
VALUELESS = ("ipv4", "ipv6", "encrypted", "unencrypted")
FLAGS = frozenset(name for name in SETTERS if name.endswith("all-namespaces") or name in VALUELESS)
SHORT = {"namespace": "n", "label": "l", "type": "t", "all-namespaces": "A", "ipv4": "4", "ipv6": "6"}

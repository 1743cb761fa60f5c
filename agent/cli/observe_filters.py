"""The filters of `deflector observe` as options, kept in the order in which they were typed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click

from agent.cli.headings import HeadedCommand, under
from flows.request import FLAGS, SETTERS, SHORT, FilterOption

# What each filter means; `--from-X` and `--to-X` are the same for the source and the destination only.
HELP = {
    "all-namespaces": "Flows of all namespaces.",
    "cel-expression": "Flows for which this CEL expression is true.",
    "cluster": "Flows from or to this cluster.",
    "drop-reason-desc": "Flows dropped for this reason, e.g. POLICY_DENIED.",
    "encrypted": "Encrypted flows.",
    "fqdn": "Flows from or to this name; * is any part of it.",
    "http-header": "HTTP flows with this header, NAME:VALUE.",
    "http-method": "HTTP flows with this method.",
    "http-path": "HTTP flows whose path matches this regex.",
    "http-status": "HTTP responses with this code, or prefix: 403, 5+.",
    "http-url": "HTTP flows whose URL matches this regex.",
    "identity": "Flows from or to this identity: a number or a reserved name.",
    "interface": "Flows seen at this interface.",
    "ip": "Flows from or to this address or CIDR.",
    "ip-trace-id": "Flows with this IP trace id.",
    "ip-version": "Flows of this IP version: 4 or 6.",
    "ipv4": "IPv4 flows.",
    "ipv6": "IPv6 flows.",
    "label": "Flows from or to endpoints that this selector chooses.",
    "namespace": "Flows from or to this namespace.",
    "node-label": "Flows seen on nodes that this selector chooses.",
    "node-name": "Flows seen on this node; * is any part of it.",
    "pod": "Flows from or to pods [NAMESPACE/]PREFIX.",
    "port": "Flows from or to this port.",
    "protocol": "tcp, udp, icmp, icmpv4, icmpv6, http, dns, kafka ...",
    "service": "Flows from or to services [NAMESPACE/]PREFIX.",
    "snat-ip": "Flows with this translated source address.",
    "tcp-flags": "Flows with all these TCP flags, e.g. SYN,ACK.",
    "trace-id": "Flows of this trace.",
    "traffic-direction": "ingress or egress.",
    "type": "l7, drop, policy-verdict, trace[:to-endpoint] ...",
    "unencrypted": "Flows that are not encrypted.",
    "uuid": "The flow with this id.",
    "verdict": "FORWARDED, DROPPED, REDIRECTED ...",
    "workload": "Flows from or to [KIND/]NAME.",
}
NOT = "not_"
filters = under("Filters")


class OrderedFilters(HeadedCommand):
    """Keeps the filters in the order in which they were typed, because `--not` turns the one after it around."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        values, _, order = self.make_parser(ctx).parse_args(list(args))
        left: dict[str, Iterator[Any]] = {}
        typed: list[FilterOption] = []
        negated = False
        for parameter in order:
            assert parameter.name is not None
            if parameter.name == NOT:
                if negated:
                    raise click.UsageError("consecutive --not statements", ctx)
                negated = True
                continue
            if parameter.name not in FILTER_PARAMETERS:
                continue
            given = left.setdefault(parameter.name, iter(values[parameter.name]))
            typed.append(FilterOption(FILTER_PARAMETERS[parameter.name], str(next(given)), negated))
            negated = False
        if negated:
            raise click.UsageError(
                "trailing --not found in the arguments: it stands before the filter that it turns around", ctx
            )
        ctx.obj = typed
        return super().parse_args(ctx, args)


FILTER_PARAMETERS = {name.replace("-", "_"): name for name in SETTERS}


def filter_options(command: Callable[..., None]) -> Callable[..., None]:
    """Declare every filter of flows.request, in alphabetical order, and `--not`."""
    command = filters(
        "--not", NOT, is_flag=True, multiple=True, expose_value=False, help="Turn the next filter around."
    )(command)
    for name in sorted(SETTERS, reverse=True):
        words = [f"--{name}", *([f"-{SHORT[name]}"] if name in SHORT else [])]
        flag: dict[str, Any] = {"is_flag": True, "flag_value": "yes"} if name in FLAGS else {"metavar": "VALUE"}
        command = filters(*words, multiple=True, expose_value=False, help=_help(name), **flag)(command)
    return command


def _help(name: str) -> str:
    for prefix, side in (("from-", "source"), ("to-", "destination")):
        if name.startswith(prefix):
            return f"As --{name.removeprefix(prefix)}, {side} only."
    return HELP[name]

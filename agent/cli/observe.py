"""`deflector observe`: flows on the terminal, with hubble's options, filters and output."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from agent.cli.headings import HeadedCommand
from agent.cli.server_options import server_options
from agent.errors import EnvironmentProblem
from flows.channels import Dial
from flows.client import ClientError, print_flows
from flows.gotime import TimeError
from flows.printer import Printer, PrinterError, Style
from flows.request import FLAGS, SETTERS, SHORT, FilterOption, OptionError, Options, build_request

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
                negated = True
                continue
            if parameter.name not in FILTER_PARAMETERS:
                continue
            given = left.setdefault(parameter.name, iter(values[parameter.name]))
            typed.append(FilterOption(FILTER_PARAMETERS[parameter.name], str(next(given)), negated))
            negated = False
        if negated:
            raise click.UsageError("--not stands before the filter that it turns around", ctx)
        ctx.obj = typed
        return super().parse_args(ctx, args)


FILTER_PARAMETERS = {name.replace("-", "_"): name for name in SETTERS}


def filter_options(command: Callable[..., None]) -> Callable[..., None]:
    """Declare every filter of flows.request, in alphabetical order."""
    for name in sorted(SETTERS, reverse=True):
        words = [f"--{name}", *([f"-{SHORT[name]}"] if name in SHORT else [])]
        flag: dict[str, Any] = {"is_flag": True, "flag_value": "yes"} if name in FLAGS else {"metavar": "VALUE"}
        command = click.option(*words, multiple=True, expose_value=False, help=_help(name), **flag)(command)
    return command


def _help(name: str) -> str:
    for prefix, side in (("from-", "source"), ("to-", "destination")):
        if name.startswith(prefix):
            return f"As --{name.removeprefix(prefix)}, {side} only."
    return HELP[name]


@click.command(
    cls=OrderedFilters,
    epilog="Example: deflector observe -f --pod deathstar --verdict DROPPED --not --protocol udp",
)
@server_options
@click.option("-f", "--follow", is_flag=True, help="Go on with new flows as they are seen.")
@click.option("--last", type=click.IntRange(min=1), help="The last N flows that match.  [default: 20]")
@click.option("--first", type=click.IntRange(min=1), help="The first N flows that match.")
@click.option("--all", "everything", is_flag=True, help="All flows that the ring holds.")
@click.option("--since", default="", help="Flows since: 5m, 1h30m, or a time (RFC 3339).")
@click.option("--until", default="", help="Flows until: as --since.")
@click.option("-o", "--output", default="compact", show_default=True, help="compact, dict, json (jsonpb), table (tab).")
@click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True)
@click.option("--time-format", default="StampMilli", show_default=True, help="StampMilli, RFC3339, RFC3339Nano ...")
@click.option("--numeric", is_flag=True, help="Addresses instead of names.")
@click.option("--print-node-name", is_flag=True, help="Show the node in each line.")
@click.option("--print-policy-names", is_flag=True, help="Show which policies gave a policy verdict.")
@click.option("--why", is_flag=True, help="Say under each flow which rule allowed it, or why none did.")
@click.option("--not", NOT, is_flag=True, multiple=True, expose_value=False, help="Turn the next filter around.")
@filter_options
@click.pass_context
def observe(
    ctx: click.Context,
    dial: Dial,
    run_dir: Path,
    follow: bool,
    last: int | None,
    first: int | None,
    everything: bool,
    since: str,
    until: str,
    output: str,
    color: str,
    time_format: str,
    numeric: bool,
    print_node_name: bool,
    print_policy_names: bool,
    why: bool,
) -> None:
    """Watch flows, as `hubble observe` does: its filters, its output.

    Values of one filter are alternatives, different filters must all match. Filters about both ends (--pod) match
    either end.
    """
    wanted = Options(ctx.obj, follow, last or 0, first or 0, everything, since, until)
    style = Style(
        output=output,
        colour=_has_colour(color),
        node_name=print_node_name,
        policy_names=print_policy_names,
        ip_translation=not numeric,
        time_format=time_format,
        why=why,
    )
    try:
        request = build_request(wanted, time.time_ns())
        printer = Printer(style)
    except (OptionError, TimeError, PrinterError) as error:
        raise click.UsageError(str(error), ctx) from None
    try:
        asyncio.run(print_flows(dial, request, printer, _write, _warn))
    except ClientError as error:
        raise EnvironmentProblem(str(error)) from None
    except KeyboardInterrupt:
        pass


def _has_colour(choice: str) -> bool:
    if choice == "auto":
        return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return choice == "always"


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _warn(text: str) -> None:
    sys.stderr.write(text)

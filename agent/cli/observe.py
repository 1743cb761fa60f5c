"""`deflector observe`: flows and agent events on the terminal, with hubble's options, filters and output."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from agent.cli.headings import HeadedCommand, under
from agent.cli.observe_filters import OrderedFilters, filter_options
from agent.cli.server_options import server_options
from agent.errors import EnvironmentProblem
from flows.channels import Dial
from flows.client import ClientError, observe_agent, print_flows
from flows.event_printer import EventPrinter
from flows.gotime import TimeError
from flows.mask import HUBBLE_DEFAULT, HUBBLE_FORGOT, Mask, MaskError
from flows.predicates import FilterError
from flows.printer import OUTPUTS, Printer, PrinterError, Style
from flows.raw_filters import RawFilterError, filters_yaml, read_filters
from flows.replay import LINE_MAX, Replay
from flows.request import OptionError, Options, build_events_request, build_request

SHOWN = HUBBLE_DEFAULT | HUBBLE_FORGOT  # all that is printed where it is not JSON
WHY = frozenset(("policy_log", "emitter"))
LEGACY_JSON = "legacy-json-output"  # in HUBBLE_COMPAT: flows without their envelope
USAGE_ERRORS = (OptionError, TimeError, PrinterError, RawFilterError, FilterError, MaskError)

selector, form, raw, other = map(under, ("Selectors", "Form", "Raw filters", "Others"))
SELECTORS = (
    selector("-f", "--follow", is_flag=True, help="Go on with what comes."),
    selector("--last", type=click.IntRange(min=0), default=0, help="The last N that match.  [default: 20]"),
    selector("--first", type=click.IntRange(min=0), default=0, help="The first N that match."),
    selector("--all", "everything", is_flag=True, help="All that there are."),
    selector("--since", default="", help="Since: 5m, 1h30m ago, or a time (RFC 3339)."),
    selector("--until", default="", help="Until: as --since."),
)
FORM = (
    form("-o", "--output", default="compact", show_default=True, help="compact, dict, json (jsonpb), table (tab)."),
    form("--time-format", default="StampMilli", show_default=True, help="StampMilli, RFC3339, RFC3339Nano ..."),
    form("--print-node-name", is_flag=True, help="Show the node in each line."),
    form("--print-policy-names", is_flag=True, help="Show which policies gave a policy verdict."),
)
FLOW_FORM = (
    form("--color", type=click.Choice(["auto", "always", "never"]), default="auto", show_default=True),
    form("--numeric", is_flag=True, help="Addresses instead of names."),
    form("--ip-translation", type=bool, is_flag=False, flag_value=True, default=True, help="=false: as --numeric."),
    form("--why", is_flag=True, help="Say under each flow which rule allowed it, or why none did."),
)
RAW = (
    raw("--allowlist", multiple=True, metavar="JSON", help="Flows that one of these FlowFilters chooses, too."),
    raw("--denylist", multiple=True, metavar="JSON", help="No flows that one of these FlowFilters chooses."),
    raw("--print-raw-filters", is_flag=True, help="Print the filters in this form, and ask nobody."),
)
OTHERS = (
    other("-s", "--silent-errors", is_flag=True, help="Say nothing about nodes that fail."),
    other("-D", "--debug", is_flag=True, help="Say which nodes come and go."),
)
FLOW_OTHERS = (
    other(
        "--input-file", metavar="FILE", help="Read responses in JSON from here instead of a server; -: standard input."
    ),
    other(
        "--field-mask",
        multiple=True,
        metavar="FIELDS",
        help="Only these fields, e.g. time,source.pod_name (JSON only).",
    ),
    other(
        "--use-default-field-masks",
        type=bool,
        is_flag=False,
        flag_value=True,
        default=True,
        show_default=True,
        help="Ask only for what is printed, where that is not JSON.",
    ),
)


def _declared(*groups: Iterable[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def declare(command: Any) -> Any:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return declare


class ObserveGroup(OrderedFilters, click.Group):
    """Shows flows when no kind of events is named."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


flow_options = _declared(SELECTORS, [filter_options], RAW, FORM, FLOW_FORM, [server_options], OTHERS, FLOW_OTHERS)
EXAMPLE = "Example: deflector observe -f --pod deathstar --verdict DROPPED --not --protocol udp"


@click.group(cls=ObserveGroup, invoke_without_command=True, epilog=EXAMPLE)
@flow_options
@click.pass_context
def observe(ctx: click.Context, /, **given: Any) -> None:
    """Watch flows, as `hubble observe` does: its filters, its output.

    Values of one filter are alternatives, different filters must all match. Filters about both ends (--pod) match
    either end.
    """
    if ctx.invoked_subcommand is None:
        _observe_flows(ctx, given)


@observe.command(cls=OrderedFilters, epilog=EXAMPLE.replace("observe", "observe flows"))
@flow_options
@click.pass_context
def flows(ctx: click.Context, /, **given: Any) -> None:
    """Watch flows; the same as without this word."""
    _observe_flows(ctx, given)


@observe.command("agent-events", cls=HeadedCommand, epilog="Example: deflector observe agent-events -f")
@_declared(SELECTORS, FORM, [server_options], OTHERS)
@click.pass_context
def agent_events(ctx: click.Context, /, dial: Dial, run_dir: Path, **given: Any) -> None:
    """Watch what happens to the agent: policies, endpoints, addresses."""
    with _usage(ctx):
        _check_form(given)
        request = build_events_request(_options(given), time.time_ns())
        printer = EventPrinter(_style(given))

    async def ask() -> None:
        try:
            async for response in observe_agent(dial, request):
                _write(printer.event(response))
        finally:
            _write(printer.close())

    _run(ask())


@observe.command("debug-events", cls=HeadedCommand, epilog="Example: deflector observe debug-events")
@_declared(SELECTORS, FORM, [server_options], OTHERS)
def debug_events(**given: Any) -> None:
    """There are none: this data path has no debug mode."""
    raise EnvironmentProblem("there are no debug events: this data path has no debug mode")


def _observe_flows(ctx: click.Context, given: dict[str, Any]) -> None:
    with _usage(ctx):
        _check_form(given)
        options = replace(_options(given), filters=ctx.obj, field_mask=_mask(given))
        request = build_request(options, time.time_ns())
        for name, filters in (("allowlist", request.whitelist), ("denylist", request.blacklist)):
            with _naming(name):
                filters.extend(read_filters(given[name]))
        printer = Printer(_style(given))
        if given["print_raw_filters"]:
            _write(filters_yaml(request))
            return
        replay = Replay(request) if given["input_file"] else None
    warn = _ignore if given["silent_errors"] else _warn
    if replay is not None:
        _print_file(given["input_file"], replay, printer, warn)
    else:
        _run(print_flows(given["dial"], request, printer, _write, warn))


def _options(given: dict[str, Any]) -> Options:
    names = ("follow", "last", "first", "since", "until")
    return Options(
        all=given["everything"], from_file=bool(given.get("input_file")), **{name: given[name] for name in names}
    )


def _style(given: dict[str, Any]) -> Style:
    compat = os.environ.get("HUBBLE_COMPAT", "")
    return Style(
        output=given["output"].lower(),
        colour=_has_colour(given.get("color", "never")),
        node_name=given["print_node_name"],
        policy_names=given["print_policy_names"],
        ip_translation=given.get("ip_translation", False) and not given["numeric"],
        time_format=given["time_format"],
        debug=given["debug"],
        why=given.get("why", False),
        bare_json=given["output"].lower() == "json" and LEGACY_JSON in compat.split(","),
    )


def _check_form(given: dict[str, Any]) -> None:
    if given["follow"] and given["output"] in ("tab", "table"):
        raise OptionError("table output format is not compatible with follow mode")


def _mask(given: dict[str, Any]) -> list[str]:
    """What to ask for: what was named, or what is printed."""
    named = [path for text in given["field_mask"] for path in text.split(",") if path]
    is_json = OUTPUTS.get(given["output"].lower()) == "json"
    if named and not is_json:
        raise OptionError(f"{given['output']} output format is not compatible with custom field mask")
    if named:
        Mask(named)  # so that a wrong path is refused here
    if is_json or not given["use_default_field_masks"]:
        return named
    return sorted(SHOWN | WHY if given["why"] else SHOWN)


def _print_file(name: str, replay: Replay, printer: Printer, warn: Callable[[str], None]) -> None:
    try:
        with open(0 if name == "-" else name, encoding="utf-8", errors="replace", closefd=name != "-") as lines:
            for response in _replayed(lines, replay, warn):
                _write(printer.text(response))
                warn(printer.notice(response))
    except OSError as error:
        raise EnvironmentProblem(f"open {name}: {error.strerror}; is this the file?") from None
    except KeyboardInterrupt:
        pass
    finally:
        _write(printer.close())


def _replayed(lines: Any, replay: Replay, warn: Callable[[str], None]) -> Iterator[Any]:
    while not replay.is_done and (line := lines.readline(LINE_MAX + 2)):
        response = replay.feed(line.removesuffix("\n"))
        if replay.complaint:
            warn(f"deflector: {replay.complaint}\n")
        if response is not None:
            yield response
    yield from replay.rest()


def _run(work: Coroutine[Any, Any, None]) -> None:
    try:
        asyncio.run(work)
    except ClientError as error:
        raise EnvironmentProblem(str(error)) from None
    except KeyboardInterrupt:
        pass


@contextmanager
def _usage(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except USAGE_ERRORS as error:
        raise click.UsageError(str(error), ctx) from None


@contextmanager
def _naming(option: str) -> Iterator[None]:
    try:
        yield
    except RawFilterError as error:
        raise RawFilterError(f"invalid --{option} flag: {error}") from None


def _has_colour(choice: str) -> bool:
    if choice == "auto":
        return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    return choice == "always"


def _write(text: str) -> None:
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


def _warn(text: str) -> None:
    if text:
        sys.stderr.write(text)


def _ignore(text: str) -> None:
    """Say nothing."""

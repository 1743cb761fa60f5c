"""`deflector status`: what the node enforces; `--check`: what the machine offers and what is missing."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.headings import HeadedCommand
from agent.cli.options import bpffs_option
from agent.cli.server_options import server_options_if_named
from agent.errors import EnvironmentProblem
from agent.interrupt import quietly

if TYPE_CHECKING:
    from flows.channels import Dial


@click.command(
    cls=HeadedCommand,
    epilog="Example: deflector status --check   (before the first run: is this machine ready?)",
)
@server_options_if_named
@bpffs_option
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json", "compact", "dict", "table"]),
    default="text",
    show_default=True,
    help="The last three with --server only, as hubble has them.",
)
@click.option("--check", is_flag=True, help="Check kernel features and tools instead; needs no running node.")
@click.pass_context
def status(ctx: click.Context, dial: Dial | None, run_dir: Path, bpffs: Path, output: str, check: bool) -> None:
    """Show the node's health, endpoints, slots and problems. Exit code 1 if it is not ready.

    With --server: whether that Hubble API is healthy, and how many flows it holds, as `hubble status` tells it.
    """
    if dial is not None:
        sys.exit(_ask(dial, "compact" if output == "text" else output))
    if output not in ("text", "json"):
        raise click.UsageError(f"-o {output} is for --server", ctx)
    if check:
        sys.exit(_check(run_dir, bpffs, output))
    with quietly():
        from agent.config import RunDir
        from agent.documents.status import fetch_status, print_status, status_console

    document = fetch_status(RunDir(run_dir.absolute()).agent_socket)
    if output == "json":
        click.echo(json.dumps(document))
    else:
        print_status(document, status_console())
    sys.exit(0 if document["ready"] else 1)


def _ask(dial: Dial, output: str) -> int:
    with quietly():
        from flows.client import ClientError, ask_status
        from flows.status import status_text, unhealthy_text

    try:
        answer = asyncio.run(ask_status(dial))
    except ClientError as error:
        raise EnvironmentProblem(str(error)) from None
    if answer.status is None:
        click.echo(unhealthy_text(str(dial), answer.state), nl=False)
        return 1
    click.echo(status_text(str(dial), answer.status, output), nl=False)
    return 0


def _check(run_dir: Path, bpffs: Path, output: str) -> int:
    with quietly():
        from agent.doctor import examine, plain, print_checks
        from agent.documents.status import status_console
        from bpf.features import State
        from bpf.loader import Options

    found = examine(Options(bpffs=bpffs.absolute(), run_dir=run_dir.absolute()))
    if output == "json":
        click.echo(json.dumps(plain(found)))
    else:
        print_checks(found, status_console())
    return 0 if all(check.state is State.OK for check in found) else 1

"""`deflector status`: what the node enforces; `--check`: what the machine offers and what is missing."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from agent.cli.options import bpffs_option, run_dir_option
from agent.interrupt import quietly


@click.command(epilog="Example: deflector status --check   (before the first run: is this machine ready?)")
@run_dir_option
@bpffs_option
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@click.option("--check", is_flag=True, help="Check kernel features and tools instead; needs no running node.")
def status(run_dir: Path, bpffs: Path, output: str, check: bool) -> None:
    """Show the node's health, endpoints, slots and problems. Exit code 1 if it is not ready."""
    if check:
        sys.exit(_check(run_dir, bpffs, output))
    with quietly():
        from agent.config import RunDir
        from agent.status import fetch_status, print_status, status_console

    document = fetch_status(RunDir(run_dir.absolute()).agent_socket)
    if output == "json":
        click.echo(json.dumps(document))
    else:
        print_status(document, status_console())
    sys.exit(0 if document["ready"] else 1)


def _check(run_dir: Path, bpffs: Path, output: str) -> int:
    with quietly():
        from agent.doctor import examine, plain, print_checks
        from agent.status import status_console
        from bpf.features import State
        from bpf.loader import Options

    found = examine(Options(bpffs=bpffs.absolute(), run_dir=run_dir.absolute()))
    if output == "json":
        click.echo(json.dumps(plain(found)))
    else:
        print_checks(found, status_console())
    return 0 if all(check.state is State.OK for check in found) else 1

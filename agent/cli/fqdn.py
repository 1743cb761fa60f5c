"""`deflector fqdn list`: the names that pods have learned."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from agent.cli.options import output_option, run_dir_option
from agent.config import RunDir

WIDEST: Final = 10_000  # columns: a row is one line, and no name is cut for a long list of policies beside it


@click.group()
def fqdn() -> None:
    """What toFQDNs have to do with."""


@fqdn.command(name="list", epilog="Example: deflector fqdn list --pattern '*.github.com'")
@click.option("--pattern", default="*", help="Only names that this matchPattern selects.  [default: every name]")
@click.option("--all", "every", is_flag=True, help="Also names that no policy of this node selects.")
@run_dir_option
@output_option
def listing(pattern: str, every: bool, run_dir: Path, output: str) -> None:
    """List names and their addresses, how long these stay, who has learned them, and which policies select them.

    Exit code 1 if there are none.
    """
    from agent.documents.status import fetch_names
    from policies.dns_patterns import Dialect, NameSet

    document = fetch_names(RunDir(run_dir.absolute()).agent_socket)
    wanted = NameSet((), (pattern,), Dialect.DNS_RULE)
    names = [row for row in document["names"] if row["name"] in wanted and (every or row["selectors"])]
    if output == "json":
        click.echo(json.dumps({**document, "names": names}))
    else:
        print_names(names, document)
    sys.exit(0 if names else 1)


def print_names(names: Sequence[Mapping[str, Any]], document: Mapping[str, Any]) -> None:
    """Some rows of the document for people, and what there is to say of all of it."""
    from rich.console import Console

    from agent.names.document import names_summary, names_table

    console = Console(highlight=False, soft_wrap=True, width=WIDEST)
    if names:
        console.print(names_table(names))
    for line in names_summary(document):
        console.print(line)

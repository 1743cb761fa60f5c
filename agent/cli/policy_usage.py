"""`deflector policy usage`: which rules are used, and which nothing has used."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from agent.cli.options import output_option, run_dir_option
from agent.config import RunDir


@click.command(epilog="Example: deflector policy usage --unused   (rules that can perhaps go)")
@click.option("--unused", "only_unused", is_flag=True, help="Only rules that nothing has used; exit code 1 if any.")
@run_dir_option
@output_option
def usage(only_unused: bool, run_dir: Path, output: str) -> None:
    """Show how often each rule of this node allowed, denied or nearly allowed something, and when last.

    Clauses are counted by connections, HTTP rules by requests when they end. Counting starts with the agent, and anew
    for a rule that is edited.
    """
    from agent.documents.status import fetch_usage, status_console
    from agent.usage.document import unused, usage_summary, usage_table

    document = fetch_usage(RunDir(run_dir.absolute()).agent_socket)
    rules = unused(document["rules"]) if only_unused else document["rules"]
    if output == "json":
        click.echo(json.dumps({**document, "rules": rules}))
    else:
        console = status_console()
        if rules:
            console.print(usage_table(rules))
        for line in usage_summary(document):
            console.print(line)
    sys.exit(1 if only_unused and rules else 0)

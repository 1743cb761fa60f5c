"""`deflector policy lint`: what the policies of a folder say in vain. Offline; needs no root."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.text import Text

from agent.cli.options import modes_options, output_option, show_problems
from agent.config import Modes


@click.command(epilog="Example: deflector policy lint policies/   (in CI, beside 'deflector policy validate')")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False), metavar="DIR")
@modes_options
@output_option
def lint(folder: Path, modes: Modes, output: str) -> None:
    """Find rules of a folder that are shadowed, unreachable or void, about nobody or about everybody.

    Takes the pods of the folder for all there are. Exit code 0: nothing is found; 1: something is.
    """
    from agent.documents.status import status_console
    from agent.offline import compile_offline, read_offline
    from policies.advising.lint import lint as findings_of
    from policies.errors import PHRASES, Severity
    from policies.types import Origin

    offline = read_offline(folder, modes)
    found = []
    for finding in findings_of(offline.scene, lambda world: compile_offline(world, modes=modes)[0]):
        place = offline.places.of(Origin(finding.kind, finding.namespace, finding.name, finding.path))
        found.append(finding.at(place.file, place.line) if place is not None else finding)
    found.sort(key=lambda finding: finding.sort_key)
    show_problems(problem for problem in offline.problems if problem.severity is Severity.ERROR)
    if output == "json":
        plain = [
            {
                "file": f.source,
                "line": f.line,
                "kind": f.kind,
                "namespace": f.namespace,
                "name": f.name,
                "path": f.path,
                "reason": str(f.reason),
                "message": f.message,
            }
            for f in found
        ]
        click.echo(json.dumps(plain, indent=2, ensure_ascii=False))
    else:
        console = status_console()
        for f in found:
            where, what = f"{f.place}: " if f.place else "", f"{PHRASES.get(f.reason, f.reason)} ({f.reason})"
            console.print(
                Text.assemble((where, "dim"), (f"{f.about} {f.path}", "bold"), ": ", (what, "yellow"), ": ", f.message)
            )
        words = f"{len(found)} finding{'s' if len(found) != 1 else ''}"
        console.print(Text(words if found else "nothing is said in vain", style="yellow" if found else "green"))
    sys.exit(1 if found else 0)

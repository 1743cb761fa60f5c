"""`deflector policy validate`: check manifests as a node would, or as Cilium would. Needs no root and no node."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.options import output_option
from agent.errors import EnvironmentProblem

if TYPE_CHECKING:
    from policies.advising.validation import Verdict
    from policies.errors import PolicyError

STDIN = "-"


@click.command(
    epilog="""\b
Examples:
  deflector policy validate policies/ extra.yaml
  kubectl get cnp,ccnp,netpol -A -o yaml | deflector policy validate -
  deflector policy validate --compat cilium -o json rule1.yaml
""",
)
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--compat",
    type=click.Choice(["cilium"]),
    help="Accept and refuse exactly what Cilium v1.19.4 does; the rest are warnings.",
)
@output_option
def validate(files: tuple[str, ...], compat: str | None, output: str) -> None:
    """Check every object of each FILE: files of YAML or JSON, folders of them, or - for standard input.

    An error refuses the object; a warning says what its author may not have meant. Exit code 0: all objects are valid;
    1: some are not; 2: a file cannot be read.
    """
    from policies.advising.validation import Judge, Validator

    validator = Validator(Judge.CILIUM if compat else Judge.DEFLECTOR)
    verdicts: list[Verdict] = []
    problems: list[str] = []
    for name, text in _texts(files, problems):
        verdicts += validator.judge(text, name)
    verdicts = validator.together(verdicts)
    if output == "json":
        click.echo(json.dumps([_as_json(verdict) for verdict in verdicts], indent=2, ensure_ascii=False))
    else:
        _show(verdicts)
    if problems:
        raise EnvironmentProblem("; ".join(problems))
    sys.exit(0 if all(verdict.valid for verdict in verdicts) else 1)


def _texts(files: tuple[str, ...], problems: list[str]) -> Iterator[tuple[str, str]]:
    """Name and text of each file that can be read; what cannot goes into `problems`."""
    from policies.reading.manifests import SUFFIXES

    for name in files:
        path = Path(name)
        if name != STDIN and path.is_dir():
            found = sorted(p for p in path.iterdir() if p.name.endswith(SUFFIXES) and not p.name.startswith("."))
            if not found:
                problems.append(f"{name}: has no manifest ({', '.join('*' + suffix for suffix in SUFFIXES)})")
        else:
            found = [path]
        for file in found:
            try:
                yield str(file) if name != STDIN else STDIN, _read(name, file)
            except OSError as error:
                problems.append(f"{file}: {(error.strerror or str(error)).lower()}")
            except ValueError as error:
                problems.append(f"{file}: {error}")


def _read(name: str, file: Path) -> str:
    """The text. Raises OSError or ValueError in words."""
    from policies.reading.manifests import TEXT_MAX

    if name == STDIN:
        written = sys.stdin.buffer.read(TEXT_MAX + 1)
    else:
        with file.open("rb") as stream:
            written = stream.read(TEXT_MAX + 1)
    if len(written) > TEXT_MAX:
        raise ValueError(f"is larger than {TEXT_MAX >> 20} MiB")
    try:
        return written.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8: byte {error.start}") from None


def _as_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "file": verdict.file,
        "document": verdict.number,
        "kind": verdict.kind,
        "namespace": verdict.namespace,
        "name": verdict.name,
        "valid": verdict.valid,
        "errors": [_finding(error) for error in verdict.errors],
        "warnings": [_finding(warning) for warning in verdict.warnings],
    }


def _finding(finding: PolicyError) -> dict[str, Any]:
    return {"path": finding.path, "reason": str(finding.reason), "message": finding.message, "line": finding.line}


def _show(verdicts: list[Verdict]) -> None:
    """One line per finding, errors red and warnings yellow on a terminal; then the sum."""
    for verdict in verdicts:
        for finding, colour in [*((e, "red") for e in verdict.errors), *((w, "yellow") for w in verdict.warnings)]:
            place, _, rest = str(finding).partition(": ")
            click.echo(f"{click.style(place, bold=True)}: {click.style(rest, fg=colour)}")
    invalid = sum(not verdict.valid for verdict in verdicts)
    warnings = sum(len(verdict.warnings) for verdict in verdicts)
    counts = [_count(len(verdicts), "object"), f"{invalid} invalid" if invalid else "all valid"]
    if warnings:
        counts.append(_count(warnings, "warning"))
    click.secho(", ".join(counts) if verdicts else "no objects", fg="red" if invalid else "green")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

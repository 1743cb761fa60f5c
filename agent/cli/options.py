"""Options that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from agent.config import DEFAULT_BPFFS, DEFAULT_RUN_DIR

run_dir_option = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_RUN_DIR,
    show_default=True,
    help="Folder of the node's sockets and state.",
)
bpffs_option = click.option(
    "--bpffs",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_BPFFS,
    show_default=True,
    help="BPF filesystem for pinned programs and maps; mounted if it is not.",
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the answer."
)


def manifests_option(*, required: bool) -> Callable[[Any], Any]:
    """The folder of manifests of a command that looks at it once."""
    return click.option(
        "--manifests",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        required=required,
        help="Folder of YAML or JSON manifests.",
    )


def show_problems(problems: Iterable[object]) -> None:
    """What is wrong with the manifests, on stderr: the answer is about what a node would enforce all the same."""
    for problem in problems:
        click.echo(f"deflector: {problem}", err=True)

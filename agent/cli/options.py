"""Options that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from pathlib import Path

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

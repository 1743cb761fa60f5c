"""`deflector bpf`: the kernel programs, compiled and pinned by a process that ends soon after."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent.cli.options import bpffs_option, run_dir_option


@click.group()
def bpf() -> None:
    """Compile and pin the kernel programs."""


@bpf.command(epilog="Example: deflector bpf load   (in an init container, before the agent)")
@run_dir_option
@bpffs_option
@click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/cache/deflector"),
    show_default=True,
    help="Folder where compiled programs are kept.",
)
def load(run_dir: Path, bpffs: Path, cache_dir: Path) -> None:
    """Compile the programs, load and pin them with their maps; adopt what is there. Prints what was done as JSON."""
    from bpf.loader import main

    sys.exit(main(["--bpffs", str(bpffs), "--run-dir", str(run_dir), "--cache-dir", str(cache_dir)]))

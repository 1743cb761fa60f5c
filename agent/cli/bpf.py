"""`deflector bpf`: the kernel programs, compiled and pinned by a process that ends soon after."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from agent.cli.options import bpffs_option, run_dir_option
from agent.errors import EnvironmentProblem

cache_option = click.option(
    "--cache-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("/var/cache/deflector"),
    show_default=True,
    help="Folder where compiled programs are kept.",
)


@click.group()
def bpf() -> None:
    """Compile and pin the kernel programs."""


@bpf.command(epilog="Example: deflector bpf load   (in an init container, before the agent)")
@run_dir_option
@bpffs_option
@cache_option
def load(run_dir: Path, bpffs: Path, cache_dir: Path) -> None:
    """Compile the programs, load and pin them with their maps; adopt what is there. Prints what was done as JSON."""
    from bpf.loader import main

    sys.exit(main(["--bpffs", str(bpffs), "--run-dir", str(run_dir), "--cache-dir", str(cache_dir)]))


@bpf.command("compile", epilog="Example: deflector bpf compile --cache-dir /out   (where the image is built)")
@cache_option
def compile_programs(cache_dir: Path) -> None:
    """Compile the programs into the cache and load nothing. Prints the file; nodes that have it need no compiler."""
    from bpf.loader import LoadError, precompile

    try:
        click.echo(precompile(cache_dir))
    except LoadError as error:
        raise EnvironmentProblem(f"bpf compile: {error}") from None


@bpf.command(epilog="Example: deflector bpf unload   (after the last agent of this machine has gone for good)")
@run_dir_option
@bpffs_option
def unload(run_dir: Path, bpffs: Path) -> None:
    """Remove every program, map, filter, device, rule and route of ours. From then on no policy is enforced here."""
    from agent.config import RunDir
    from agent.node.lock import HostLock, NodeLock
    from bpf.datapath import DatapathError, cleanup
    from bpf.loader import Options

    if not run_dir.is_dir() and not (bpffs / "deflector").is_dir():
        return
    run_dir.mkdir(parents=True, exist_ok=True)
    lock, host = NodeLock(RunDir(run_dir).lock), HostLock()
    try:
        lock.acquire()
        host.acquire()
        cleanup(Options(bpffs, run_dir))
    except DatapathError as error:
        raise EnvironmentProblem(str(error)) from None
    finally:
        host.release()
        lock.release()

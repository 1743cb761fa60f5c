"""`deflector doctor`: what this node offers, what clashes on it, and a probe pair that proves redirection."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click

from agent.cli.headings import HeadedCommand
from agent.cli.options import bpffs_option, output_option, run_dir_option
from agent.cli.run import PortSpan
from agent.errors import EnvironmentProblem
from agent.interrupt import quietly


@click.command(
    cls=HeadedCommand, epilog="Example: deflector doctor   (on a node, before Deflector is installed, or when it fails)"
)
@run_dir_option
@bpffs_option
@click.option("--proxy-ports", type=PortSpan(), default="14000-14999", show_default=True, help="Range of proxy ports.")
@click.option("--no-probe", is_flag=True, help="Look, and change nothing.")
@output_option
def doctor(run_dir: Path, bpffs: Path, proxy_ports: tuple[int, int], no_probe: bool, output: str) -> None:
    """Examine this node: what it lacks, who else has programs, rules and marks where Deflector's are, and whether a
    request between two pods of its own is redirected and judged. While an agent runs here, that is its own proof, and
    the pair is left out. Exit code 1 if anything is not in order.
    """
    if os.geteuid() != 0:
        raise EnvironmentProblem("'deflector doctor' looks into the kernel: run it as root")
    with quietly():
        from agent.doctor import examine, plain, print_checks
        from agent.doctoring.clashes import TABLE, judge
        from agent.doctoring.facts import gather
        from agent.doctoring.pair import probe
        from agent.documents.status import status_console
        from agent.node.lock import HostLock
        from bpf.features import Check, State
        from bpf.loader import Options

    lock, here = HostLock(), ""
    try:
        lock.acquire()
    except EnvironmentProblem as problem:
        here = str(problem).partition(":")[0]
    finally:
        lock.release()
    found = examine(Options(bpffs=bpffs.absolute(), run_dir=run_dir.absolute()))
    found += judge(gather(TABLE), proxy_ports, bool(here))
    if here:
        found.append(Check("probe pair", State.OK, f"left out: {here}; ask it ('deflector status')"))
    elif not no_probe:
        found.append(probe())
    if output == "json":
        click.echo(json.dumps(plain(found)))
    else:
        print_checks(found, status_console())
    sys.exit(0 if all(check.state is State.OK for check in found) else 1)

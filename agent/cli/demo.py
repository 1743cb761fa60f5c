"""`deflector demo`: stories that show what Deflector does, on the real kernel and the real Envoy."""

from __future__ import annotations

import asyncio
import os
import sys

import click
from rich.console import Console

from agent.errors import EnvironmentProblem
from agent.interrupt import quietly


@click.group()
def demo() -> None:
    """Stories on the real kernel and the real Envoy."""


@demo.command(epilog="Example: deflector demo starwars")
def starwars() -> None:
    """The Star Wars story: a policy keeps the x-wing out, and the TIE fighter away from the exhaust port.

    Runs in network namespaces of its own and removes them at the end. Exit code 0: each step did what it should.
    """
    if os.geteuid() != 0:
        raise EnvironmentProblem("the story is told in network namespaces: run it as root")
    with quietly():
        from conformance.errors import EnvironmentFailure
        from conformance.story import tell

    try:
        good = asyncio.run(tell(Console(highlight=False)))
    except EnvironmentFailure as failure:
        raise EnvironmentProblem(str(failure)) from None
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0 if good else 1)

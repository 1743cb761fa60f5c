"""Entry point of `deflector`: builds the command tree and turns errors of the user into one line and an exit code.

0: done, or the answer is yes. 1: the answer is no. 2: usage or environment.
"""

from __future__ import annotations

import os
import sys

from agent.cli import commands
from agent.errors import EnvironmentProblem


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        commands()
    except EnvironmentProblem as problem:
        print(f"deflector: {problem}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): point stdout elsewhere so that the flush at exit is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()

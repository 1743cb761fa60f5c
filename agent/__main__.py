"""Entry point of `deflector`: builds the command tree and turns errors of the user into one line and an exit code.

0: done, or the answer is yes. 1: the answer is no. 2: usage or environment. 130: Ctrl-C.
"""

from __future__ import annotations

import os
import sys

from agent.interrupt import quietly

with quietly():
    import click

# gRPC's C core writes its own errors to stderr; ours say the same in one line. Read when grpc is imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

with quietly():
    from agent.cli import commands
    from agent.errors import EnvironmentProblem


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        sys.exit(commands(standalone_mode=False))
    except EnvironmentProblem as problem:
        _refuse(str(problem))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "deflector"
        _refuse(f"{error.format_message()} (see '{command} --help')")
    except click.ClickException as error:
        _refuse(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`): point stdout elsewhere so that the flush at exit is silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _refuse(words: str) -> None:
    print(f"deflector: {words}", file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()

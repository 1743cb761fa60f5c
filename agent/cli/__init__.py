"""The command line, one file per command. Commands are dull: they parse, call, print and choose the exit code.

Heavy imports happen inside the commands, so that `--help` and completion are quick.
"""

from agent.cli.root import commands

__all__ = ["commands"]

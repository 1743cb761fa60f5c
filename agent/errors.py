"""The one error that a person may cause: a sentence saying what, where and what to do. The command line prints it."""

from __future__ import annotations


class EnvironmentProblem(Exception):
    """The machine or the arguments do not allow what was asked. `str()` is one line; exit code 2."""

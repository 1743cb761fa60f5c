"""The two ways in which a run can fail before any verdict: the machine is not fit, or a suite is badly written."""

from __future__ import annotations


class EnvironmentFailure(Exception):
    """The machine, a tool or the node under test is at fault: one line for the user, exit code 2."""


class SuiteError(Exception):
    """A suite cannot be read. `path` is the field path, in the form `scenarios[3].steps[0].probe[1].to`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path

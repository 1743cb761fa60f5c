"""The ways in which a run fails other than by a wrong verdict."""

from __future__ import annotations


class EnvironmentFailure(Exception):
    """The machine, a tool or the node under test is at fault: one line for the user, exit code 2."""


class SuiteError(Exception):
    """A suite cannot be read. `path` is the field path, in the form `scenarios[3].steps[0].probe[1].to`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


class NotEnforced(Exception):
    """The node did not do in time what its manifests say; a failure of the scenario, not of the machine."""


def first_cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a group of tasks ended with; an interrupt first, then a failure of the environment."""
    causes = list(_leaves(group))
    for kind in (KeyboardInterrupt, EnvironmentFailure):
        for cause in causes:
            if isinstance(cause, kind):
                return cause
    return causes[0]


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]

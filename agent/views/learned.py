"""What DNS has taught, as a view of the node asks it. Pure."""

from __future__ import annotations

from typing import Final, Protocol


class LearnedNames(Protocol):
    """It changes while the view does not."""

    def names_of(self, ip: str, by: str) -> tuple[str, ...]:
        """The names under which the pod with address `by` knows an address."""

    def identity_of(self, ip: str) -> int | None:
        """The identity of an address of names."""


class NoNames:
    """Where nobody observes DNS."""

    def names_of(self, ip: str, by: str) -> tuple[str, ...]:
        return ()

    def identity_of(self, ip: str) -> int | None:
        return None


NO_NAMES: Final = NoNames()

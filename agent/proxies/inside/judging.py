"""What the process of a proxy of ours does, whatever the protocol: as the process drives it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from agent.proxies.inside.report_stream import Source
from xds.client import Told


class Judging(Protocol):
    """The judge of one protocol, with its sockets. Everything happens in one loop."""

    @property
    def source(self) -> Source:
        """What it tells the agent."""

    def start(self, wake: Callable[[bool], None]) -> None:
        """Serve; refuse everything until told. `wake(urgent)`: there is something to tell."""

    def apply(self, told: Told) -> None:
        """Judge by this from now on. ValueError where it cannot be: nothing has changed then."""

    def stop(self) -> None:
        """Close everything."""


Makers = Mapping[str, Callable[[bool], Judging]]
"""By consumer (xds.l7); the argument: whether other workers share its ports."""

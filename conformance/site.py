"""Where a suite is played, as the stage sees it: who has which address, clients in pods, policies that come and go.

Declared here; satisfied by network namespaces of this machine (conformance.local_site) and by pods of a cluster
(conformance.cluster.site).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from conformance.blueprint import Blueprint
from conformance.expectation import Answer
from conformance.probes import Call
from conformance.scenario import Policy, Request


class Place(Protocol):
    """Who there is, and where."""

    @property
    def blueprint(self) -> Blueprint: ...

    def namespace(self, who: str) -> str:
        """The network namespace that clients of this party are started in; "" where they are in it already."""

    def address(self, who: str, family: int) -> str:
        """The address by which others know a pod, a host, the node or the world."""


class Connection(Protocol):
    """A keep-alive HTTP/1.1 connection out of a pod. After anything but an answer it is dead."""

    @property
    def opened_at(self) -> float:
        """Monotonic seconds, by our clock."""

    @property
    def client_port(self) -> int: ...

    async def ask(self, request: Request, timeout: float) -> Answer:
        """Send the request and read its answer; never raises."""

    def close(self) -> None: ...


class Site(Protocol):
    """Where the scenarios of a suite are played, one after the other."""

    @property
    def place(self) -> Place: ...

    @property
    def flags(self) -> tuple[str, ...]:
        """What the node was started with."""

    @property
    def flow_patience(self) -> float:
        """Seconds until an expected flow is seen."""

    async def ask(self, call: Call) -> Answer:
        """Make the call and say how it ended."""

    async def connect(self, call: Call) -> Connection:
        """A live connection between the call's addresses. Raises OSError."""

    def spell(self, call: Call) -> str:
        """What repeats the call, or comes nearest to it."""

    async def keep(self, policies: Sequence[Policy]) -> None:
        """Let these policies hold and no others; returns when they are enforced. Raises NotEnforced."""

    async def apply(self, policies: Sequence[Policy]) -> None:
        """Make or change policies; returns when that is enforced. Raises NotEnforced."""

    async def remove(self, objects: Collection[str]) -> None:
        """Remove policies by their names; returns when that is enforced. Raises NotEnforced."""

    async def log_tail(self) -> list[str]:
        """The end of the node's log, if it is at hand."""

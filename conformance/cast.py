"""The cast of a probe: from which namespace and address it is asked, to which address, and how flows name the two."""

from __future__ import annotations

import re
from dataclasses import replace

from conformance.blueprint import Pod
from conformance.expectation import Parties
from conformance.galaxy import NODE, WORLD
from conformance.http1 import authority
from conformance.probes import Call, Ports
from conformance.scenario import Open, Outcome, Probe, Traffic
from conformance.site import Place
from conformance.target import Target


class Cast:
    """Makes calls out of probes, each with a client port of its own."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.ports = Ports()

    def call(self, probe: Probe) -> Call:
        """The probe with addresses."""
        address = self._place.address(probe.source, probe.family)
        return Call(
            probe,
            self._place.namespace(probe.source),
            (address, self.ports.take()),
            self.remote(probe.target, probe.family),
        )

    def over(self, probe: Probe, client_port: int) -> Call:
        """The probe on a connection that is open already."""
        call = self.call(probe)
        return replace(call, local=(call.local[0], client_port))

    def opening(self, step: Open | Traffic) -> Call:
        """A connection, with nothing asked yet."""
        return self.call(Probe(step.source, step.target, Outcome.DIRECT, family=step.family))

    def remote(self, target: Target, family: int) -> tuple[str, int]:
        """The address that is dialled."""
        if target.kind == "service":
            return self._place.blueprint.service(target.name).address(family), target.port
        return self._place.address(target.name or target.kind, family), target.port

    def parties(self, call: Call) -> Parties:
        """How flows name client and server of the call."""
        probe = call.probe
        host = (probe.request.host if probe.request else "") or authority(*call.remote)
        return Parties(
            source=self.named(probe.source) or call.local[0],
            source_ip=call.local[0],
            destination=self._destination(call),
            dialled_ip=call.remote[0],
            authority=host,
            client_port=call.local[1],
            ports=(call.remote[1], self._served_port(probe.target)),
        )

    def _served_port(self, target: Target) -> int:
        is_service = target.kind == "service"
        return self._place.blueprint.service(target.name).target_port if is_service else target.port

    def _destination(self, call: Call) -> str:
        target = call.probe.target
        if target.kind != "service":
            return self.named(target.name or target.kind) or call.remote[0]
        return f"~{'|'.join(map(re.escape, self._behind(target, call.probe.family)))}"

    def server(self, target: Target, remote: tuple[str, int]) -> str:
        """How flows name whom a question was put to (a pattern): also by the address that was asked."""
        if target.kind != "service":
            return self.named(target.name or target.kind) or remote[0]
        family = 6 if ":" in remote[0] else 4
        return f"~{'|'.join(map(re.escape, (*self._behind(target, family), remote[0])))}"

    def _behind(self, target: Target, family: int) -> list[str]:
        behind = self._place.blueprint.service(target.name).backends
        return [self.named(b.alias if isinstance(b, Pod) else b.name) or b.address(family) for b in behind]

    def named(self, who: str) -> str:
        """The pod of that alias as flows name it; "" for hosts, the node and the world, which are addresses."""
        pods = {pod.alias: str(pod) for pod in self._place.blueprint.pods}
        return "" if who in (NODE, WORLD) else pods.get(who, "")

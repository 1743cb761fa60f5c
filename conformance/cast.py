"""The cast of a probe: from which namespace and address it is asked, to which address, and how flows name the two."""

from __future__ import annotations

import re
from dataclasses import replace

from conformance.expectation import Parties
from conformance.galaxy import NODE, WORLD, Galaxy
from conformance.http1 import authority
from conformance.probes import Call, Ports
from conformance.scenario import Open, Outcome, Probe, Target, Traffic


class Cast:
    """Makes calls out of probes, each with a client port of its own."""

    def __init__(self, galaxy: Galaxy) -> None:
        self._galaxy = galaxy
        self.ports = Ports()

    def call(self, probe: Probe) -> Call:
        """The probe with addresses."""
        address = self._galaxy.address(probe.source, probe.family)
        return Call(probe, self._galaxy.namespace(probe.source), (address, self.ports.take()), self._remote(probe))

    def over(self, probe: Probe, client_port: int) -> Call:
        """The probe on a connection that is open already."""
        call = self.call(probe)
        return replace(call, local=(call.local[0], client_port))

    def opening(self, step: Open | Traffic) -> Call:
        """A connection, with nothing asked yet."""
        return self.call(Probe(step.source, step.target, Outcome.DIRECT, family=step.family))

    def _remote(self, probe: Probe) -> tuple[str, int]:
        target = probe.target
        if target.kind == "service":
            return self._galaxy.blueprint.service(target.name).address(probe.family), target.port
        return self._galaxy.address(target.name or target.kind, probe.family), target.port

    def parties(self, call: Call) -> Parties:
        """How flows name client and server of the call."""
        probe = call.probe
        host = (probe.request.host if probe.request else "") or authority(*call.remote)
        return Parties(
            source=self._named(probe.source) or call.local[0],
            source_ip=call.local[0],
            destination=self._destination(call),
            dialled_ip=call.remote[0],
            authority=host,
            client_port=call.local[1],
            ports=(call.remote[1], self._served_port(probe.target)),
        )

    def _served_port(self, target: Target) -> int:
        is_service = target.kind == "service"
        return self._galaxy.blueprint.service(target.name).target_port if is_service else target.port

    def _destination(self, call: Call) -> str:
        target = call.probe.target
        if target.kind != "service":
            return self._named(target.name or target.kind) or call.remote[0]
        behind = self._galaxy.blueprint.service(target.name).backends
        names = [
            self._named(b.alias if hasattr(b, "alias") else b.name) or b.address(call.probe.family) for b in behind
        ]
        return f"~{'|'.join(map(re.escape, names))}"

    def _named(self, who: str) -> str:
        """The pod of that alias as flows name it; "" for hosts, the node and the world, which are addresses."""
        pods = {pod.alias: str(pod) for pod in self._galaxy.blueprint.pods}
        return "" if who in (NODE, WORLD) else pods.get(who, "")

"""Policies and questions for stories on the real kernel and the real Envoy, in a galaxy of conformance."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from conformance import netns
from conformance.galaxy import Galaxy

Request = tuple[str, str]
LANDING: Request = ("POST", "/v1/request-landing")
PORT: Request = ("PUT", "/v1/exhaust-port")
HOME: Request = ("GET", "/v1/")
DROPPED = "000"  # curl's code for no answer at all


def http_rule(request: Request, *who: Mapping[str, str], port: int = 80) -> dict[str, Any]:
    """An ingress rule of the deathstar's: these pods may ask for this."""
    rule = {"method": request[0], "path": request[1]}
    return {**l4_rule(*who), "toPorts": [{"ports": [entry(port)], "rules": {"http": [rule]}}]}


def l4_rule(*who: Mapping[str, str], port: int = 80) -> dict[str, Any]:
    peers = [{"matchLabels": dict(labels)} for labels in who]
    return {"fromEndpoints": peers, "toPorts": [{"ports": [entry(port)]}]}


def entry(port: int) -> dict[str, str]:
    return {"port": str(port), "protocol": "TCP"}


def policy_name(name: str) -> str:
    return f"policy-{name}.yaml"


def save(made: Galaxy, name: str, *ingress: Mapping[str, Any]) -> None:
    """A policy of the deathstar's."""
    spec = {"endpointSelector": {"matchLabels": {"class": "deathstar"}}, "ingress": list(ingress)}
    metadata = {"name": name, "namespace": "default"}
    body = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": metadata, "spec": spec}
    made.manifests.write(policy_name(name), yaml.safe_dump(body))


@dataclass(frozen=True)
class Asker:
    """Asks the deathstar over a connection of its own."""

    made: Galaxy

    def ask(self, who: str, request: Request, patience: float, port: int = 80) -> str:
        """The status code that the pod gets, DROPPED if none comes within `patience` seconds."""
        url = f"http://{self.made.address('deathstar-1', 4)}:{port}{request[1]}"
        argv = ["curl", "-s", "-m", f"{patience:g}", "-o", "/dev/null", "-w", "%{http_code}", "-X", request[0], url]
        done = subprocess.run(netns.inside(self.made.namespace(who), argv), capture_output=True, text=True, check=False)
        return done.stdout

"""Deflector as it is installed in the cluster: its agents, what they say is enforced, and the way to the relay.

Asks kubectl only. It is found by the labels that the chart gives, in whatever namespace.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance.cluster.kubectl import Kubectl, KubectlFailure, Raw
from conformance.errors import EnvironmentFailure
from flows.channels import ClientTls, Dial

AGENTS = "app.kubernetes.io/name=deflector,app.kubernetes.io/component=agent"
AGENT_CONTAINER = "agent"
RELAY = "hubble-relay"
RELAY_SECRET = "hubble-relay-server-certs"
TLS_PORT = 443
INSTALL = "install the chart first (docs/install.md)"


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent of a node."""

    namespace: str
    pod: str
    node: str
    image: str

    async def status(self, kubectl: Kubectl) -> dict[str, Any] | str:
        """What it says of itself, good or not; or why it says nothing. Raises EnvironmentFailure."""
        words = ("-n", self.namespace, "exec", self.pod, "-c", AGENT_CONTAINER, "--")
        _, out, complaint = await kubectl.outcome(*words, "deflector", "status", "-o", "json")
        try:
            document = json.loads(out)
        except ValueError:
            document = None
        if isinstance(document, dict):
            return document
        return f"'deflector status' gives no answer in pod {self.namespace}/{self.pod}: {complaint or 'no word'}"

    async def log(self, kubectl: Kubectl, lines: int) -> list[str]:
        """The end of its log; nothing if that cannot be read."""
        words = ("-n", self.namespace, "logs", self.pod, "-c", AGENT_CONTAINER, f"--tail={lines}")
        code, out, _ = await kubectl.outcome(*words)
        return [] if code else out.splitlines()[-lines:]


async def agents(kubectl: Kubectl) -> list[Agent]:
    """All agents, sorted. Raises EnvironmentFailure if there are none."""
    found = [_agent(raw) for raw in await kubectl.items("pods", "--all-namespaces", "-l", AGENTS)]
    if not found:
        raise EnvironmentFailure(f"no agent of Deflector runs in this cluster: {INSTALL}")
    return sorted(found, key=lambda agent: (agent.namespace, agent.pod))


def _agent(raw: Raw) -> Agent:
    containers = raw["spec"]["containers"]
    image = next((one["image"] for one in containers if one["name"] == AGENT_CONTAINER), containers[0]["image"])
    return Agent(raw["metadata"]["namespace"], raw["metadata"]["name"], raw["spec"].get("nodeName", ""), image)


@asynccontextmanager
async def relay(kubectl: Kubectl, tls: ClientTls | None) -> AsyncIterator[Dial]:
    """The way to the relay by a forwarded port. `tls`: how the user wants it to be asked, where it speaks TLS; without,
    its authority is read from its Secret. Raises EnvironmentFailure."""
    services = await kubectl.items("services", "--all-namespaces", "--field-selector", f"metadata.name={RELAY}")
    if not services:
        raise EnvironmentFailure(f"there is no service {RELAY}: name a Hubble API with --server, or {INSTALL}")
    meta, port = services[0]["metadata"], int(services[0]["spec"]["ports"][0]["port"])
    namespace = meta["namespace"]
    with tempfile.TemporaryDirectory(prefix="deflector-") as folder:
        if port == TLS_PORT:
            asked = tls or ClientTls((await _authority(kubectl, namespace, Path(folder)),))
            named = asked.server_name or f"{RELAY}.{namespace}.svc"
            secure = ClientTls(asked.cas, asked.certificate, asked.key, named, asked.allow_insecure)
        else:
            secure = None
        async with kubectl.forwarded(namespace, f"service/{RELAY}", port) as local:
            yield Dial(f"127.0.0.1:{local}", secure)


async def _authority(kubectl: Kubectl, namespace: str, folder: Path) -> Path:
    words = f"the relay speaks TLS, and Secret {namespace}/{RELAY_SECRET}"
    try:
        secret = await kubectl.read("get", "secret", RELAY_SECRET, "-n", namespace)
        text = base64.b64decode(secret["data"]["ca.crt"])
    except (KubectlFailure, KeyError, ValueError) as error:
        why = error.complaint if isinstance(error, KubectlFailure) else "has no ca.crt"
        raise EnvironmentFailure(f"{words} {why}: name its authority with --tls-ca-cert-files") from None
    path = folder / "ca.crt"
    path.write_bytes(text)
    return path

"""The document that `deflector status -o json` prints, from the facts that a node knows of itself. Pure.

Its keys are an interface: conformance, the benchmarks and users' scripts read them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from agent.config import Config, ObservabilityConfig
from agent.node.policy_loop import Enforced
from policies.ir import Endpoint, NodePolicy, Slot


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """`pid` is None while there is no process; `connected`: its ADS stream is open; `needed`: some slot is its own (of
    Envoy always)."""

    pid: int | None
    restarts: int
    connected: bool
    needed: bool = True


@dataclass(frozen=True, slots=True)
class FlowFacts:
    """Flows in the ring, its capacity, all there ever were; kernel events lost before they became flows; exporters that
    can take none now, a line each."""

    held: int
    capacity: int
    seen: int
    events_lost: int
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What the document is made of. `ports`: proxy port of each slot that listens."""

    config: Config
    version: str
    enforced: Enforced
    pending: bool
    problems: Sequence[str]
    ports: Mapping[str, int]
    proxies: Mapping[str, ProxyFacts]
    flows: FlowFacts
    names: Mapping[str, Any]


def node_document(facts: NodeFacts) -> dict[str, Any]:
    """`ready`: a first state is enforced and Envoy is connected. `enforced_files`: SHA-256 by path in the folder;
    `enforced_policies`, of a node that follows an API server: metadata.generation by kind, namespace and name."""
    config, enforced, envoy, flows = facts.config, facts.enforced, facts.proxies["envoy"], facts.flows
    return {
        "ready": bool(enforced.revision and envoy.connected),
        "node": config.node_name,
        "version": facts.version,
        "manifests": config.source,
        "revision": enforced.revision,
        "pending": facts.pending,
        **_versions(config, enforced.files),
        "problems": list(facts.problems),
        "envoy": {"pid": envoy.pid, "restarts": envoy.restarts, "connected": envoy.connected},
        "proxies": {name: asdict(proxy) for name, proxy in facts.proxies.items() if name != "envoy"},
        "names": dict(facts.names),
        "kernel": {"loaded": True, "events_lost": flows.events_lost},
        "hubble": {
            "flows": flows.held,
            "capacity": flows.capacity,
            "seen": flows.seen,
            "addresses": [
                f"unix://{config.run_dir.hubble_socket}",
                f"tls://{config.hubble_address}" if config.hubble_tls is not None else config.hubble_address,
            ],
        },
        "metrics": config.observability.metrics_address or None,
        "exporters": _exporters(config.observability),
        "exporters_failing": list(flows.troubles),
        "slots": [_slot(slot, facts.ports.get(slot.name)) for slot in enforced.node.slots],
        "endpoints": [_endpoint(endpoint, enforced.node) for endpoint in enforced.node.endpoints],
    }


def _versions(config: Config, versions: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """SHA-256 by file, or generation by policy."""
    if config.manifests is None:
        return {
            "enforced_files": {},
            "enforced_policies": {name: version.partition("/")[0] for name, version in versions.items()},
        }
    folder = config.manifests
    return {"enforced_files": {str(PurePath(path).relative_to(folder)): sha for path, sha in versions.items()}}


def _exporters(config: ObservabilityConfig) -> list[str]:
    """Where flows go, in words that say it."""
    static = [config.exporter.file.path] if config.exporter is not None else []
    dynamic = [f"as in {config.exporters_file}"] if config.exporters_file is not None else []
    return [*static, *dynamic, *([f"otlp://{config.otlp.endpoint}"] if config.otlp is not None else [])]


def _slot(slot: Slot, port: int | None) -> dict[str, Any]:
    """A slot without a port has no listener any more: its filter judges what Envoy drains."""
    return {
        "name": slot.name,
        "parser": slot.parser.value,
        "port": port,
        "state": slot.state.value,
        "rules": len(slot.rule_set.rules),
        "allows_all": slot.rule_set.allows_all,
    }


def _endpoint(endpoint: Endpoint, node: NodePolicy) -> dict[str, Any]:
    policy = next(p for p in node.policies if p.group == endpoint.group)
    return {
        "id": endpoint.id,
        "namespace": endpoint.namespace,
        "name": endpoint.name,
        "identity": endpoint.group,
        "addresses": list(endpoint.addresses),
        "ingress_enforced": policy.ingress.enforced,
        "egress_enforced": policy.egress.enforced,
    }

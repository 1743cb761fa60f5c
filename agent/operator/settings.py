"""What `deflector operator` was told. Frozen data."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from agent.operator.collector import GarbageTimes
from agent.operator.leases import Timing


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """`port` 0: no webhook. Without `certificate` and `key` it has its own, for the Service of that name, and tells the
    ValidatingWebhookConfiguration of that name."""

    port: int = 0
    service: str = "deflector-webhook"
    configuration: str = "deflector-policies"
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """`identity` names this process among those that stand for election in `namespace`. `page`: HOST:PORT of metrics
    and health, "" for none."""

    namespace: str
    identity: str
    cluster: str = "default"
    kubeconfig: Path | None = None
    context: str = ""
    install_crds: bool = False
    beside_cilium: bool = False
    slices: bool = False
    writes_per_second: float = 20.0
    timing: Timing = field(default_factory=Timing)
    garbage: GarbageTimes = field(default_factory=GarbageTimes)
    webhook: WebhookSettings = field(default_factory=WebhookSettings)
    page: str = ""

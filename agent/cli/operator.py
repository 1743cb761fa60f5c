"""`deflector operator`: what one process does for a whole cluster. Several may run; one of them leads."""

from __future__ import annotations

import asyncio
import platform
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.headings import HeadedCommand, under
from agent.cli.relay import Seconds
from agent.config import DEFAULT_CLUSTER
from agent.interrupt import quietly

if TYPE_CHECKING:
    from agent.operator.settings import OperatorSettings

FILE = click.Path(path_type=Path, dir_okay=False)
server, election, garbage, webhook = (
    under("API server"),
    under("Election"),
    under("Garbage"),
    under("Admission webhook"),
)


@click.command(
    cls=HeadedCommand,
    epilog="Example: deflector operator --namespace kube-system --identity $(hostname) --install-crds",
)
@server("--kubeconfig", type=FILE, help="How the API server is reached.  [default: this pod's service account]")
@server("--context", default="", help="Context of the kubeconfig.  [default: its current one]")
@server("--cluster-name", default=DEFAULT_CLUSTER, show_default=True, help="Name of this cluster.")
@server("--install-crds", is_flag=True, help="Install definitions that are absent; what others installed stays.")
@server("--beside-cilium", is_flag=True, help="Go on although Cilium seems to run in this cluster.")
@server(
    "--writes-per-second",
    type=click.FloatRange(0, min_open=True),
    default=20.0,
    show_default=True,
    help="Writes to the API server, after bursts.",
)
@server(
    "--enable-cilium-endpoint-slice", "slices", is_flag=True, help="Gather CiliumEndpoints into CiliumEndpointSlices."
)
@election("--namespace", default="kube-system", show_default=True, help="Where the lease is.")
@election("--identity", default=platform.node, help="Name of this candidate.  [default: the host name]")
@election(
    "--leader-election-lease-duration",
    "duration",
    type=Seconds(),
    default="15s",
    show_default=True,
    help="Others wait so long for a silent leader.",
)
@election(
    "--leader-election-renew-deadline",
    "renew",
    type=Seconds(),
    default="10s",
    show_default=True,
    help="A leader that cannot renew stops after that.",
)
@election(
    "--leader-election-retry-period",
    "retry",
    type=Seconds(),
    default="2s",
    show_default=True,
    help="Between looks at the lease.",
)
@garbage(
    "--identity-gc-interval",
    type=Seconds(),
    default="15m",
    show_default=True,
    help="Between looks at identities, at most.",
)
@garbage(
    "--identity-heartbeat-timeout",
    type=Seconds(),
    default="30m",
    show_default=True,
    help="How long an identity is unused before it goes.",
)
@garbage(
    "--cilium-endpoint-gc-interval", type=Seconds(), default="5m", show_default=True, help="Between looks at endpoints."
)
@webhook("--webhook-port", type=click.IntRange(0, 65535), default=0, help="Judge policies on admission here.  [off]")
@webhook("--webhook-cert-file", "certificate", type=FILE, help="Certificate; read anew when it changes.  [our own]")
@webhook("--webhook-key-file", "key", type=FILE, help="Its key.")
@webhook(
    "--webhook-service", "service", default="deflector-webhook", show_default=True, help="Service that our own is for."
)
@webhook(
    "--webhook-configuration",
    "configuration",
    default="deflector-policies",
    show_default=True,
    help="ValidatingWebhookConfiguration that is told to trust our own.",
)
@click.option(
    "--metrics-listen-address", "page", default="", help="Serve /metrics, /healthz and /readyz here, e.g. :9963.  [off]"
)
def operator(**given: Any) -> None:
    """Do what one process does for a whole cluster: definitions, conditions and events of policies, garbage.

    Several may run: one of them leads, as a Lease says, and the others wait. The webhook is answered by all.
    """
    settings = _settings(given)
    with quietly():
        from agent.operator.operator import run_operator

    sys.exit(asyncio.run(run_operator(settings)))


def _settings(given: dict[str, Any]) -> OperatorSettings:
    with quietly():
        from agent.operator.collector import GarbageTimes
        from agent.operator.leases import Timing
        from agent.operator.settings import OperatorSettings, WebhookSettings

    timing = Timing(given["duration"], given["renew"], given["retry"])
    if fault := timing.fault():
        raise click.UsageError(f"--leader-election-*: {fault}")
    if (given["certificate"] is None) != (given["key"] is None):
        raise click.UsageError("--webhook-cert-file and --webhook-key-file go together")
    times = (given["identity_gc_interval"], given["identity_heartbeat_timeout"], given["cilium_endpoint_gc_interval"])
    return OperatorSettings(
        namespace=given["namespace"],
        identity=f"{given['identity']}_{uuid.uuid4()}",
        cluster=given["cluster_name"],
        kubeconfig=given["kubeconfig"],
        context=given["context"],
        install_crds=given["install_crds"],
        beside_cilium=given["beside_cilium"],
        slices=given["slices"],
        writes_per_second=given["writes_per_second"],
        timing=timing,
        garbage=GarbageTimes(*times),
        webhook=WebhookSettings(
            given["webhook_port"], given["service"], given["configuration"], given["certificate"], given["key"]
        ),
        page=given["page"],
    )

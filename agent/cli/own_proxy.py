"""`deflector dns-proxy` and `deflector kafka-proxy`: the processes of our own proxies. People rarely call these."""

from __future__ import annotations

import asyncio
import gc
import platform
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from agent.cli.headings import HeadedCommand
from agent.cli.options import run_dir_option
from agent.config import RunDir
from agent.interrupt import quietly

if TYPE_CHECKING:
    from agent.proxies.inside.judging import Judging

node_name_option = click.option(
    "--node-name", default=platform.node, help="Name of this node, as its agent's.  [default: the host name]"
)


@click.command(cls=HeadedCommand, epilog="Example: deflector dns-proxy --run-dir /run/deflector")
@run_dir_option
@node_name_option
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Processes that share the queries; more than one needs Linux 6.6, and pays where cores are idle.",
)
@click.option("--follow", type=int, hidden=True, help="The descriptor on which a first worker tells this one.")
def dns_proxy(run_dir: Path, node_name: str, workers: int, follow: int | None) -> None:
    """Judge DNS queries that the kernel redirects, as the agent of this node tells.

    `deflector run` starts it when a policy has DNS rules. It goes on while the agent is away.
    """
    with quietly():
        from agent.proxies.inside.dns import DnsJudging
    shared = workers > 1 or follow is not None
    _serve("dns-proxy", run_dir, node_name, lambda: DnsJudging(shared=shared), workers, follow)


@click.command(cls=HeadedCommand, epilog="Example: deflector kafka-proxy --run-dir /run/deflector")
@run_dir_option
@node_name_option
def kafka_proxy(run_dir: Path, node_name: str) -> None:
    """Judge Kafka requests that the kernel redirects, as the agent of this node tells.

    `deflector run` starts it when a policy has Kafka rules. It goes on while the agent is away.
    """
    with quietly():
        from agent.proxies.inside.kafka import KafkaJudging
    _serve("kafka-proxy", run_dir, node_name, KafkaJudging)


def _serve(
    consumer: str,
    run_dir: Path,
    node_name: str,
    make: Callable[[], Judging],
    workers: int = 1,
    descriptor: int | None = None,
) -> None:
    with quietly():
        from agent.log import configure
        from agent.proxies.capabilities import CAP_NET_ADMIN, CAP_NET_RAW, keep_only
        from agent.proxies.inside.process import Place, follow, require_folder, serve
        from agent.proxies.inside.workers import Follower
    configure()
    files = RunDir(run_dir.absolute())
    require_folder(files.root)
    keep_only((CAP_NET_ADMIN, CAP_NET_RAW))
    gc.freeze()  # what was imported is never garbage: the collector need not look at it
    own = files.proxy(consumer)
    place = Place(consumer, node_name, files.xds_socket, own.last_told)

    command = [consumer, "--run-dir", str(files.root), "--node-name", node_name]
    followers = [Follower(command) for _ in range(workers - 1)] if descriptor is None else []

    async def main() -> None:
        if descriptor is None:
            await serve(make(), place, followers)
        else:
            await follow(make(), place, descriptor)

    asyncio.run(main())

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
def dns_proxy(run_dir: Path, node_name: str) -> None:
    """Judge DNS queries that the kernel redirects, as the agent of this node tells.

    `deflector run` starts it when a policy has DNS rules. It goes on while the agent is away.
    """
    with quietly():
        from agent.proxies.inside.dns import DnsJudging
    _serve("dns-proxy", run_dir, node_name, lambda: DnsJudging(shared=False))


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


def _serve(consumer: str, run_dir: Path, node_name: str, make: Callable[[], Judging]) -> None:
    with quietly():
        from agent.log import configure
        from agent.proxies.capabilities import CAP_NET_ADMIN, CAP_NET_RAW, keep_only
        from agent.proxies.inside.process import Place, require_folder, serve
    configure()
    files = RunDir(run_dir.absolute())
    require_folder(files.root)
    keep_only((CAP_NET_ADMIN, CAP_NET_RAW))
    gc.freeze()  # what was imported is never garbage: the collector need not look at it
    own = files.proxy(consumer)
    place = Place(consumer, node_name, files.xds_socket, own.last_told)

    async def main() -> None:
        await serve(make(), place)

    asyncio.run(main())

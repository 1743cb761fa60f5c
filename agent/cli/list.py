"""`deflector list` and `deflector watch`: nodes, namespaces and peers, as hubble prints them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from agent.cli.headings import HeadedCommand
from agent.cli.server_options import server_options
from agent.errors import EnvironmentProblem
from agent.interrupt import quietly

if TYPE_CHECKING:
    from flows.channels import Dial

T = TypeVar("T")
output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "wide", "json"]), default="table", show_default=True
)


@click.group("list")
def listing() -> None:
    """What the Hubble API knows of: nodes, namespaces."""


@listing.command(cls=HeadedCommand, epilog="Example: deflector list nodes -o wide")
@output_option
@server_options
def nodes(dial: Dial, run_dir: Path, output: str) -> None:
    """The nodes: this one, or those of a relay."""
    with quietly():
        from flows.client import ask_nodes
        from flows.listing import nodes_text
    click.echo(nodes_text(_answer(ask_nodes(dial)).nodes, output), nl=False)


@listing.command(cls=HeadedCommand, epilog="Example: deflector list namespaces")
@output_option
@server_options
def namespaces(dial: Dial, run_dir: Path, output: str) -> None:
    """The namespaces of flows of the last hour."""
    with quietly():
        from flows.client import ask_namespaces
        from flows.listing import namespaces_text
    click.echo(namespaces_text(_answer(ask_namespaces(dial)).namespaces, output), nl=False)


@click.group()
def watch() -> None:
    """What the Hubble API tells of as it happens: peers."""


@watch.command(cls=HeadedCommand, epilog="Example: deflector watch peers")
@server_options
def peers(dial: Dial, run_dir: Path) -> None:
    """The nodes of the cluster, and what changes of them. Ends with Ctrl-C."""
    with quietly():
        from flows.client import observe_peers
        from flows.listing import peer_text

    async def follow() -> None:
        async for news in observe_peers(dial):
            click.echo(peer_text(news), nl=False)

    _answer(follow())


def _answer(asked: Coroutine[Any, Any, T]) -> T:
    from flows.client import ClientError

    try:
        return asyncio.run(asked)
    except ClientError as error:
        raise EnvironmentProblem(str(error)) from None

"""`deflector relay`: the flows of many nodes as one Hubble API; options as of `hubble-relay serve`."""

from __future__ import annotations

import asyncio
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.headings import HeadedCommand, under
from agent.config import DEFAULT_CLUSTER, DEFAULT_RUN_DIR, RunDir
from agent.interrupt import quietly

if TYPE_CHECKING:
    from flows.channels import ClientTls
    from flows.relay.settings import RelaySettings
    from flows.rpc.tls import TlsFiles

FILE = click.Path(path_type=Path, dir_okay=False)
nodes, clients = under("Nodes"), under("Clients")


class Seconds(click.ParamType[float]):
    """A duration in Go's form, in seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from flows.gotime import DURATION, duration_ns

        if isinstance(value, float):
            return value
        if not DURATION.match(str(value)) or duration_ns(str(value)) <= 0:
            self.fail(f"{value!r} is no duration: 30s and 1m30s are", param, ctx)
        return duration_ns(str(value)) / 1e9


@click.command(
    cls=HeadedCommand,
    epilog="Example: deflector relay --peer-service 10.0.0.1:4244 --disable-client-tls --disable-server-tls",
)
@nodes(
    "--peer-service",
    default=f"unix://{RunDir(DEFAULT_RUN_DIR).hubble_socket}",
    show_default=True,
    help="Who tells of the nodes: HOST:PORT or unix:///PATH of any node's Hubble API.",
)
@nodes("--cluster-name", default=DEFAULT_CLUSTER, show_default=True, help="Part of the name in nodes' certificates.")
@nodes(
    "--retry-timeout", type=Seconds(), default="30s", show_default=True, help="Wait at most so long between attempts."
)
@nodes("--tls-hubble-server-ca-files", multiple=True, metavar="FILES", help="Authorities of the nodes' certificates.")
@nodes(
    "--tls-hubble-client-cert-file",
    "--tls-client-cert-file",
    "hubble_cert",
    type=FILE,
    help="Certificate to show them.",
)
@nodes("--tls-hubble-client-key-file", "--tls-client-key-file", "hubble_key", type=FILE, help="Its key.")
@nodes("--disable-client-tls", is_flag=True, help="Nodes speak no TLS.")
@clients("--listen-address", default=":4245", show_default=True, help="Address of the merged Hubble API.")
@clients(
    "--tls-relay-server-cert-file",
    "--tls-server-cert-file",
    "relay_cert",
    type=FILE,
    help="Certificate to show clients.",
)
@clients("--tls-relay-server-key-file", "--tls-server-key-file", "relay_key", type=FILE, help="Its key.")
@clients(
    "--tls-relay-client-ca-files", multiple=True, metavar="FILES", help="Let in only clients that these vouch for."
)
@clients("--disable-server-tls", is_flag=True, help="Speak no TLS to clients.")
@clients("--health-listen-address", default=":4222", show_default=True, help="gRPC health service, plain; '' for none.")
@clients("--metrics-listen-address", default="", help="Serve /metrics here, e.g. :9966.  [off]")
def relay(**given: Any) -> None:
    """Merge the flows of many nodes into one Hubble API, in order of time.

    Asks the peer service for the nodes, follows each of them, and tells which of them are missing. Certificates are
    read anew when they change.
    """
    settings = _settings(given)
    with quietly():
        from agent.observing.relay import run_relay

    sys.exit(asyncio.run(run_relay(settings)))


def _settings(given: dict[str, Any]) -> RelaySettings:
    with quietly():
        from flows.relay.settings import RelaySettings

    return RelaySettings(
        peer_service=given["peer_service"],
        listen=given["listen_address"],
        name=platform.node(),
        cluster=given["cluster_name"],
        tls=_client_tls(given),
        server_tls=_server_tls(given),
        retry=given["retry_timeout"],
        health=given["health_listen_address"],
        metrics=given["metrics_listen_address"],
    )


def _client_tls(given: dict[str, Any]) -> ClientTls | None:
    authorities = _paths(given["tls_hubble_server_ca_files"])
    certificate, key = given["hubble_cert"], given["hubble_key"]
    if given["disable_client_tls"]:
        return None
    if not authorities:
        raise click.UsageError("give --tls-hubble-server-ca-files, or --disable-client-tls if nodes speak no TLS")
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-hubble-client-cert-file and --tls-hubble-client-key-file go together")
    from flows.channels import ClientTls

    return ClientTls(authorities, certificate, key)


def _server_tls(given: dict[str, Any]) -> TlsFiles | None:
    certificate, key = given["relay_cert"], given["relay_key"]
    if given["disable_server_tls"]:
        return None
    if certificate is None or key is None:
        raise click.UsageError(
            "give --tls-relay-server-cert-file and --tls-relay-server-key-file, or --disable-server-tls"
        )
    from flows.rpc.tls import TlsFiles

    return TlsFiles(certificate, key, _paths(given["tls_relay_client_ca_files"]))


def _paths(given: tuple[str, ...]) -> tuple[Path, ...]:
    return tuple(Path(word) for text in given for word in text.split(",") if word)

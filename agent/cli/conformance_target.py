"""Where suites are played: on this machine, or in a cluster and by which kubectl, image and Hubble API."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from agent.cli.headings import under

if TYPE_CHECKING:
    from conformance.cluster.run import ClusterTarget

MACHINE, KUBERNETES = "machine", "kubernetes"
FILE = click.Path(path_type=Path, dir_okay=False, exists=True)

cluster = under("Cluster")
OPTIONS: Final = (
    click.option(
        "--target",
        "where",
        type=click.Choice([MACHINE, KUBERNETES]),
        default=MACHINE,
        show_default=True,
        help="Play in network namespaces of this machine, or in pods of a cluster that runs Deflector.",
    ),
    cluster("--kubectl", default="kubectl", show_default=True, metavar="PROGRAM", help="The kubectl to use."),
    cluster("--kubeconfig", default="", metavar="FILE", help="What kubectl reads.  [default: as kubectl's]"),
    cluster("--context", default="", help="Context of the kubeconfig.  [default: its current one]"),
    cluster(
        "--namespace", default="", help="Namespace to make; it must not exist.  [default: deflector-conformance-...]"
    ),
    cluster("--image", default="", help="Image of the pods: one of Deflector.  [default: that of its agents]"),
    cluster("--server", default="", metavar="TARGET", help="Hubble API, HOST:PORT or tls://HOST:PORT.  [its relay]"),
    cluster("--tls-ca-cert-files", type=FILE, multiple=True, help="Authorities to trust.  [the relay's Secret]"),
    cluster("--tls-server-name", default="", metavar="NAME", help="What its certificate must say."),
    cluster("--tls-client-cert-file", type=FILE, help="Certificate to show to it."),
    cluster("--tls-client-key-file", type=FILE, help="Its key."),
)
_OWN: Final = frozenset(
    (
        *("kubectl", "kubeconfig", "context", "namespace", "image", "server"),
        *("tls_ca_cert_files", "tls_server_name", "tls_client_cert_file", "tls_client_key_file"),
    )
)


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Declare them; the command gets `target`, None for this machine."""

    @functools.wraps(command)
    def with_target(where: str, **given: Any) -> None:
        own = {name: given.pop(name) for name in _OWN}
        if where == KUBERNETES:
            command(target=_target(own), **given)
            return
        for name, value in sorted(own.items()):
            if value and name != "kubectl":
                raise click.UsageError(f"--{name.replace('_', '-')} is for --target {KUBERNETES}")
        command(target=None, **given)

    made: Any = with_target
    for option in reversed(OPTIONS):
        made = option(made)
    return made  # type: ignore[no-any-return]


def _target(own: dict[str, Any]) -> ClusterTarget:
    from conformance.cluster.kubectl import Kubectl
    from conformance.cluster.run import ClusterTarget
    from flows.channels import ClientTls, Dial

    certificate, key = own["tls_client_cert_file"], own["tls_client_key_file"]
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-client-cert-file and --tls-client-key-file go together")
    asked = any((own["tls_ca_cert_files"], own["tls_server_name"], certificate))
    tls = ClientTls(tuple(own["tls_ca_cert_files"]), certificate, key, own["tls_server_name"]) if asked else None
    return ClusterTarget(
        Kubectl(own["kubectl"], own["context"], own["kubeconfig"]),
        run=own["namespace"],
        image=own["image"],
        server=Dial(own["server"], tls) if own["server"] else None,
        tls=tls,
    )

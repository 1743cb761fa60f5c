"""Which server of the Hubble API a command asks, and how: the options are those of the hubble command line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from agent.cli.headings import under
from agent.cli.options import run_dir_option
from agent.config import RunDir
from agent.interrupt import quietly

if TYPE_CHECKING:
    from flows.channels import Dial

FILE = click.Path(path_type=Path, dir_okay=False)
server = under("Server")
OPTIONS = (
    run_dir_option,
    server("--server", metavar="TARGET", help="unix:///PATH, HOST:PORT or tls://HOST:PORT.  [the socket in --run-dir]"),
    server("--tls", is_flag=True, help="Speak TLS; so does each of the options below."),
    server("--tls-ca-cert-files", multiple=True, metavar="FILES", help="Authorities to trust.  [the machine's]"),
    server("--tls-server-name", default="", metavar="NAME", help="What its certificate must say, if not its address."),
    server("--tls-client-cert-file", type=FILE, help="Certificate to show to it."),
    server("--tls-client-key-file", type=FILE, help="Its key."),
    server("--tls-allow-insecure", is_flag=True, help="Do not ask who answers: anybody may be in between."),
)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Declare them; the command gets `dial`, and `run_dir` if it has a parameter of this name."""

    @functools.wraps(command)
    def with_dial(**given: Any) -> None:
        own = {name: given.pop(name) for name in list(given) if name == "server" or name.startswith("tls")}
        command(dial=_dial(own, given["run_dir"]), **given)

    made: Any = with_dial
    for option in reversed(OPTIONS):
        made = option(made)
    return made  # type: ignore[no-any-return]


def _dial(given: Mapping[str, Any], run_dir: Path) -> Dial:
    with quietly():
        from flows.channels import TLS, UNIX, ClientTls, Dial

    authorities = tuple(Path(word) for text in given["tls_ca_cert_files"] for word in text.split(",") if word)
    certificate, key = given["tls_client_cert_file"], given["tls_client_key_file"]
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-client-cert-file and --tls-client-key-file go together")
    asked = any((given["tls"], authorities, given["tls_server_name"], certificate, given["tls_allow_insecure"]))
    target = given["server"]
    if target is None:
        target = f"{UNIX}//{RunDir(run_dir.absolute()).hubble_socket}"
        if asked:
            raise click.UsageError("Unix sockets speak no TLS: give --server HOST:PORT")
    if not asked and not target.startswith(TLS):
        return Dial(target)
    tls = ClientTls(authorities, certificate, key, given["tls_server_name"], given["tls_allow_insecure"])
    return Dial(target, tls)

"""Which server of the Hubble API a command asks, and how: the options are those of the hubble command line."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from agent.cli.headings import under
from agent.cli.hubble_settings import read_config, variable
from agent.cli.options import run_dir_option
from agent.config import RunDir
from agent.interrupt import quietly

if TYPE_CHECKING:
    from flows.channels import Dial

FILE = click.Path(path_type=Path, dir_okay=False)
FORWARD: Final = (
    "there is no port-forwarding here: run 'kubectl -n {namespace} port-forward service/hubble-relay {port}:80' beside "
    "it, and give --server localhost:{port}"
)


class Duration(click.ParamType[float]):
    """A Go duration, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        from flows.gotime import DURATION, duration_ns

        if isinstance(value, float):
            return value
        seconds = duration_ns(str(value)) / 1e9 if DURATION.match(str(value)) else 0.0
        if seconds <= 0:
            self.fail(f"{value!r} is no time to wait: 5s, 1m30s are", param, ctx)
        return seconds


def _server(name: str, *short: str, **settings: Any) -> Callable[[Any], Any]:
    return under("Server")(*short, f"--{name}", envvar=variable(name), **settings)


OPTIONS = (
    run_dir_option,
    _server("server", metavar="TARGET", help="unix:///PATH, HOST:PORT or tls://HOST:PORT.  [the socket in --run-dir]"),
    _server("timeout", type=Duration(), default="5s", show_default=True, help="How long to try to connect."),
    _server(
        *("request-timeout",),
        type=Duration(),
        default="12s",
        show_default=True,
        help="How long to wait for an answer that is no stream.",
    ),
    _server("tls", is_flag=True, help="Speak TLS; so does each of the options below."),
    _server("tls-ca-cert-files", multiple=True, metavar="FILES", help="Authorities to trust.  [the machine's]"),
    _server("tls-server-name", default="", metavar="NAME", help="What its certificate must say, if not its address."),
    _server("tls-client-cert-file", type=FILE, help="Certificate to show to it."),
    _server("tls-client-key-file", type=FILE, help="Its key."),
    _server("tls-allow-insecure", is_flag=True, help="Do not ask who answers: anybody may be in between."),
    _server("basic-auth-username", default="", metavar="NAME", help="User to name to a proxy in between."),
    _server("basic-auth-password", default="", metavar="TEXT", help="And the password."),
    _server("port-forward", "-P", is_flag=True, help="Not here: says how to reach a relay in a cluster."),
    _server("port-forward-port", type=int, default=4245, hidden=True),
    _server("kube-namespace", default="kube-system", hidden=True),
    _server("kube-context", default="", hidden=True),
    _server("kubeconfig", default="", hidden=True),
    under("Server")(
        "--config",
        type=FILE,
        is_eager=True,
        expose_value=False,
        callback=read_config,
        envvar=variable("config"),
        help="Hubble's config file, whose settings hold where nothing else is said.  [~/.config/hubble/config.yaml]",
    ),
)
_OWN: Final = frozenset(
    (
        *("server", "timeout", "request_timeout", "basic_auth_username", "basic_auth_password"),
        *("port_forward", "port_forward_port", "kube_namespace", "kube_context", "kubeconfig"),
    )
)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Declare them; the command gets `dial`, and `run_dir` if it has a parameter of this name."""
    return _declared(command, lambda given, run_dir: _dial(given, run_dir))


def server_options_if_named(command: Callable[..., None]) -> Callable[..., None]:
    """The same for a command that asks a server only if the command line names one; otherwise `dial` is None."""

    def dial(given: Mapping[str, Any], run_dir: Path) -> Dial | None:
        return _dial(given, run_dir) if _is_typed("server") or _is_typed("port_forward") else None

    return _declared(command, dial)


def _declared(command: Callable[..., None], make: Callable[[Mapping[str, Any], Path], Any]) -> Callable[..., None]:
    @functools.wraps(command)
    def with_dial(**given: Any) -> None:
        own = {name: given.pop(name) for name in list(given) if name in _OWN or name.startswith("tls")}
        command(dial=make(own, given["run_dir"]), **given)

    made: Any = with_dial
    for option in reversed(OPTIONS):
        made = option(made)
    return made  # type: ignore[no-any-return]


def _is_typed(name: str) -> bool:
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def _dial(given: Mapping[str, Any], run_dir: Path) -> Dial:
    with quietly():
        from flows.channels import UNIX, Dial, basic

    # who names a node's folder means that node, whatever is set for other times
    is_here = not _is_typed("server") and (given["server"] is None or _is_typed("run_dir"))
    if given["port_forward"] and (not is_here or _is_typed("port_forward") or not _is_typed("run_dir")):
        raise click.UsageError(FORWARD.format(namespace=given["kube_namespace"], port=given["port_forward_port"]))
    waits = {"timeout": given["timeout"], "request_timeout": given["request_timeout"]}
    if is_here:
        if any(_is_typed(name) for name in given if name.startswith("tls")):
            raise click.UsageError("Unix sockets speak no TLS: give --server HOST:PORT")
        return Dial(f"{UNIX}//{RunDir(run_dir.absolute()).hubble_socket}", **waits)
    dial = Dial(given["server"], _tls(given), **waits)
    user, password = given["basic_auth_username"], given["basic_auth_password"]
    if bool(user) != bool(password):
        raise click.UsageError("--basic-auth-username and --basic-auth-password go together")
    if user and dial.secure is None:
        raise click.UsageError("a password is not sent without TLS: add --tls")
    return Dial(dial.target, dial.tls, authorization=basic(user, password) if user else "", **waits)


def _tls(given: Mapping[str, Any]) -> Any:
    """None unless TLS is asked for."""
    from flows.channels import TLS, ClientTls

    authorities = tuple(Path(word) for text in given["tls_ca_cert_files"] for word in text.split(",") if word)
    certificate, key = given["tls_client_cert_file"], given["tls_client_key_file"]
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-client-cert-file and --tls-client-key-file go together")
    asked = any((given["tls"], authorities, given["tls_server_name"], certificate, given["tls_allow_insecure"]))
    if not asked and not given["server"].startswith(TLS):
        return None
    return ClientTls(authorities, certificate, key, given["tls_server_name"], given["tls_allow_insecure"])

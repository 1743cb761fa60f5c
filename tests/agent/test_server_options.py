"""Which server a command asks: what is typed goes before HUBBLE_*, and that before hubble's config file."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from agent.cli.server_options import server_options, server_options_if_named
from flows.channels import Dial

DIALS: list[Dial | None] = []
SOCKET = "unix:///run/here/hubble.sock"


@click.command()
@server_options
def ask(dial: Dial, run_dir: Path) -> None:
    """Remember who would be asked."""
    DIALS.append(dial)


@click.command()
@server_options_if_named
def look(dial: Dial | None, run_dir: Path) -> None:
    """Remember whether somebody would be."""
    DIALS.append(dial)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without settings."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def run(*typed: str, command: click.Command = ask, **env: str) -> Result:
    return CliRunner(env=env).invoke(command, ["--run-dir", "/run/here", *typed] if "nodir" not in env else typed)


def asked(*typed: str, **env: str) -> Dial:
    """`nodir`: no folder is typed."""
    DIALS.clear()
    result = run(*typed, **env)
    assert result.exit_code == 0, result.output
    assert DIALS[0] is not None
    return DIALS[0]


def refused(*typed: str, **env: str) -> str:
    result = run(*typed, **env)
    assert result.exit_code == 2, result.output
    return result.output.splitlines()[-1].removeprefix("Error: ")


def settings(home: Path, text: str) -> None:
    (home / ".config/hubble").mkdir(parents=True)
    (home / ".config/hubble/config.yaml").write_text(text)


def test_what_holds_without_any(home: Path) -> None:
    assert asked() == Dial(SOCKET, timeout=5.0, request_timeout=12.0)


def test_times(home: Path) -> None:
    dial = asked("--timeout", "1m30s", "--request-timeout", "500ms")
    assert (dial.timeout, dial.request_timeout) == (90.0, 0.5)
    assert "is no time to wait" in refused("--timeout", "soon")
    assert "is no time to wait" in refused("--request-timeout", "0s")


def test_the_environment_and_the_command_line(home: Path) -> None:
    env = {"nodir": "1", "HUBBLE_SERVER": "relay:4245", "HUBBLE_TLS": "true", "HUBBLE_TLS_CA_CERT_FILES": "a.crt,b.crt"}
    dial = asked(**env)
    assert dial.target == "relay:4245"
    assert dial.tls is not None
    assert dial.tls.cas == (Path("a.crt"), Path("b.crt"))
    assert asked("--server", "other:1", **env).target == "other:1"
    assert asked("--run-dir", "/run/here", **env).target == SOCKET  # a node's folder means that node


def test_hubbles_config_file(home: Path) -> None:
    settings(
        home, "server: tls://relay:443\ntls-ca-cert-files: [a.crt]\ntimeout: 2s\ndebug: true\nport-forward: false\n"
    )
    dial = asked(nodir="1")
    assert (dial.target, dial.timeout) == ("tls://relay:443", 2.0)
    assert dial.tls is not None
    assert dial.tls.cas == (Path("a.crt"),)
    assert asked(nodir="1", HUBBLE_SERVER="env:1").target == "env:1"
    assert asked().target == SOCKET
    (home / "other.yaml").write_text("server: other:1\n")
    assert asked("--config", str(home / "other.yaml"), nodir="1").target == "other:1"


def test_config_files_that_are_none(home: Path) -> None:
    assert refused("--config", str(home / "nowhere.yaml")).startswith(f"{home}/nowhere.yaml: No such file")
    settings(home, "[1, 2]")
    assert refused().endswith("not a mapping of options to values")
    (home / ".config/hubble/config.yaml").write_text("a: [")
    assert "not YAML" in refused()
    (home / ".config/hubble/config.yaml").write_text("")
    assert asked().target == SOCKET


def test_a_user_and_a_password(home: Path) -> None:
    both = ("--basic-auth-username", "han", "--basic-auth-password", "solo")
    assert asked("--server", "tls://relay:1", *both).authorization == "Basic aGFuOnNvbG8="
    assert refused("--server", "relay:1", *both) == "a password is not sent without TLS: add --tls"
    assert "go together" in refused("--server", "tls://relay:1", *both[:2])


def test_port_forwarding_says_what_to_do_instead(home: Path) -> None:
    told = refused("-P", "--kube-namespace", "deflector", "--port-forward-port", "4000")
    assert "'kubectl -n deflector port-forward service/hubble-relay 4000:80'" in told
    assert told.endswith("--server localhost:4000")
    assert "port-forward service/hubble-relay" in refused(nodir="1", HUBBLE_PORT_FORWARD="true")
    assert asked(HUBBLE_PORT_FORWARD="true").target == SOCKET


def test_a_command_about_this_node_heeds_only_what_is_typed(home: Path) -> None:
    DIALS.clear()
    run(command=look, HUBBLE_SERVER="relay:1", HUBBLE_PORT_FORWARD="true")
    run("--server", "relay:1", command=look)
    assert [None, Dial("relay:1")] == DIALS

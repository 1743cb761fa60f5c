"""Options about flows and metrics that cannot be meant are one line, before anything is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agent.cli.observability_options import HubbleOptions, hubble_options
from flows.redact import Redaction

TLS = ("--hubble-tls-cert-file", "a.crt", "--hubble-tls-key-file", "a.key")
FILE = ("--hubble-export-file-path", "/tmp/events.log")


def read(*words: str) -> HubbleOptions:
    """What a command with these options is given."""
    found: list[HubbleOptions] = []

    @click.command()
    @hubble_options
    def command(hubble: HubbleOptions) -> None:
        found.append(hubble)

    command.main(list(words), standalone_mode=False)
    return found[0]


def test_nothing_is_served_or_written_unasked() -> None:
    hubble = read()
    assert (hubble.address, hubble.ring, hubble.tls) == ("127.0.0.1:4245", 4095, None)
    assert not hubble.observability.metrics_address
    assert hubble.observability.exporter is None
    assert hubble.observability.otlp is None


def test_what_flows_hide_and_cilium_s_way_of_writing_switches() -> None:
    assert read().observability.redaction == Redaction(url_query=True, user_info=True)
    wanted = read(
        *("--hubble-redact-enabled", "--hubble-redact-http-urlquery=false", "--hubble-redact-kafka-apikey"),
        *("--hubble-redact-http-headers-allow", "ETag,X-Color", "--hubble-redact-http-headers-deny", "cookie"),
    )
    assert wanted.observability.redaction == Redaction(
        everything=True,
        url_query=False,
        allow=frozenset(("etag", "x-color")),
        deny=frozenset(("cookie",)),
        kafka_api_key=True,
    )


def test_lists_are_separated_by_spaces_or_given_repeatedly() -> None:
    page = ("--hubble-metrics-server", ":9965")
    hubble = read(*page, "--hubble-metrics", "drop flow", "--hubble-metrics", "dns:query")
    assert hubble.observability.metrics == "drop flow dns:query"
    mask = ("--hubble-export-fieldmask", "time,verdict", "--hubble-export-fieldmask", "node_name")
    exporter = read(*FILE, *mask, "--hubble-export-denylist", '{"uuid":["1"]} {"uuid":["2"]}').observability.exporter
    assert exporter is not None
    assert exporter.mask == {"time", "verdict", "node_name"}
    assert len(exporter.exclude) == 2
    hubble = read(*TLS, "--hubble-tls-client-ca-files", "b.crt,c.crt", "--hubble-listen-address", "0.0.0.0:4244")
    assert hubble.tls is not None
    assert hubble.tls.client_cas == (Path("b.crt"), Path("c.crt"))
    assert read("--hubble-address", ":4244", "--hubble-disable-tls", *TLS).tls is None


def test_the_collector_has_the_filters_of_the_file() -> None:
    words = ("--hubble-export-otlp-endpoint", "localhost:4317", "--hubble-export-allowlist", '{"verdict":["DROPPED"]}')
    otlp = read(*words, "--hubble-export-otlp-insecure").observability.otlp
    assert otlp is not None
    assert otlp.insecure
    assert [one.verdict for one in otlp.wanted().whitelist] == [[2]]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--hubble-address", "0.0.0.0:4244"), "is reached by others: give --hubble-tls-cert-file"),
        (("--hubble-address", ":4244"), "is reached by others"),
        (TLS[:2], "go together"),
        (("--hubble-tls-client-ca-files", "x"), "needs --hubble-tls-cert-file"),
        (("--hubble-event-buffer-capacity", "4096"), "is not 2\\^k-1"),
        (("--hubble-metrics", "drop"), "not where to serve them: --hubble-metrics-server :9965"),
        ((*FILE, "--hubble-export-allowlist", "{"), "allowlist: must be JSON filters"),
        ((*FILE, "--hubble-export-fieldmask", "no.such"), "invalid fieldmask"),
        (("--hubble-export-fieldmask", "time"), "needs --hubble-export-file-path"),
        (("--hubble-export-otlp-insecure",), "needs --hubble-export-otlp-endpoint"),
        (("--hubble-export-otlp-endpoint", "collector"), "is no HOST:PORT"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: tuple[str, ...], complaint: str) -> None:
    with pytest.raises(click.UsageError, match=complaint):
        read(*words)


def test_the_help_has_headings() -> None:
    from agent.cli.run import run

    lines = CliRunner().invoke(run, ["--help"]).output.splitlines()
    assert next(line for line in lines if line.endswith(":") and not line.startswith(" ")) == "Options:"
    assert {"Hubble API:", "Metrics:", "Flows to files and collectors:"} <= set(lines)


@pytest.mark.privileged
@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--hubble-tls-cert-file", "/no/a.crt", "--hubble-tls-key-file", "/no/a.key"), "/no/a.crt: No such file"),
        (("--hubble-metrics-server", "127.0.0.1:busy"), "is no host:port"),
        (
            ("--hubble-metrics-server", "127.0.0.1:0", "--hubble-metrics", "drop:nothing"),
            'drop: unknown option "nothing"',
        ),
        (
            ("--hubble-metrics-server", "127.0.0.1:0", "--hubble-metrics", "http httpV2"),
            "http and httpV2 share their names",
        ),
        (
            ("--hubble-export-otlp-endpoint", "127.0.0.1:1", "--hubble-export-otlp-ca-file", "/no/ca.crt"),
            "/no/ca.crt: No such file",
        ),
    ],
)
def test_what_does_not_exist_is_refused_before_the_kernel_is_touched(
    flags: tuple[str, ...], complaint: str, tmp_path: Path
) -> None:
    """In a network namespace whose loopback device is down: who gets as far as the kernel complains of that."""
    folders = ("--manifests", str(tmp_path), "--run-dir", str(tmp_path / "run"), "--bpffs", str(tmp_path / "bpf"))
    done = subprocess.run(
        ["unshare", "--net", str(Path(sys.executable).parent / "deflector"), "run", *folders, *flags],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert complaint in done.stderr
    assert not (tmp_path / "bpf").exists()

"""The command line as a person meets it: help with examples, errors of one line, exit codes 0, 1 and 2."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

DEFLECTOR = Path(sys.executable).parent / "deflector"
COMMANDS = (
    ("run",),
    ("observe",),
    ("status",),
    ("bpf", "load"),
    ("demo", "starwars"),
    ("conformance", "run"),
    ("policy", "explain"),
    ("policy", "lint"),
    ("policy", "show"),
    ("relay",),
    ("list", "nodes"),
    ("watch", "peers"),
)
NOBODY = 65534


def deflector(*words: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(DEFLECTOR), *words], capture_output=True, text=True, timeout=60, user=user, check=False)


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr of a command that ended with exit code 2."""
    assert done.returncode == 2
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("deflector: ")
    return lines[0]


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    folder = tmp_path / "manifests"
    folder.mkdir()
    return folder


@pytest.fixture
def run_dir(tmp_path: Path) -> Iterator[Path]:
    """A folder that must not be there after a start that was refused."""
    folder = tmp_path / "run"
    yield folder
    assert not folder.exists()


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(words: tuple[str, ...]) -> None:
    done = deflector(*words, "--help")
    assert done.returncode == 0
    assert "Example: deflector" in done.stdout


def test_no_command_at_all_shows_the_help() -> None:
    done = deflector()
    assert done.returncode == 2
    assert "Commands:" in done.stderr + done.stdout


def test_an_unknown_command_is_one_line() -> None:
    assert "No such command 'enforce'" in refused(deflector("enforce"))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--first", "2", "--last", "3"), "cannot set both --first and --last"),
        (("--not",), "trailing --not found in the arguments"),
        (("--type", "rumour"), "neither a number nor one of"),
        (("--output", "poem"), "invalid output format: poem"),
        (("--since", "tomorrowish"), "tomorrowish"),
        (("--server", "127.0.0.1:1"), "nobody answers there"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(words: tuple[str, ...], complaint: str) -> None:
    assert complaint in refused(deflector("observe", *words))


def test_status_without_a_node_says_how_to_start_one(tmp_path: Path) -> None:
    assert "start one with 'deflector run'" in refused(deflector("status", "--run-dir", str(tmp_path)))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert "does not exist" in refused(deflector("run", "--manifests", str(tmp_path / "nowhere")))


def test_an_unknown_suite_is_refused_with_those_that_exist() -> None:
    assert "starwars" in refused(deflector("conformance", "run", "startrek"))


INTERRUPTED = """
import signal, sys

module = sys.argv.pop(1)

class Finger:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Finger())
from agent.__main__ import main
main()
"""


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("click", ("status",)),
        ("agent.cli.root", ("status",)),
        ("agent.cli.observe", ("observe", "-f")),
        ("flows.client", ("observe", "-f")),
        ("grpc", ("status",)),
        ("grpc._cython", ("status",)),
        ("agent.doctor", ("status", "--check")),
    ],
)
def test_ctrl_c_during_an_import_ends_without_a_word(module: str, words: tuple[str, ...]) -> None:
    """A finger is on Ctrl-C at the very moment when this module is looked for."""
    argv = [sys.executable, "-c", INTERRUPTED, module, *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.privileged
def test_no_root_no_node(manifests: Path, run_dir: Path) -> None:
    """Somebody else runs the command: the modules are loaded before, since he may not be able to read the checkout."""
    code = (
        "import os, sys, agent.cli.run, agent.__main__;"
        f"os.seteuid({NOBODY}); sys.argv = ['deflector', 'run', '--manifests', '/', '--run-dir', {str(run_dir)!r}];"
        "agent.__main__.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "run it as root" in refused(done)


@pytest.mark.privileged
def test_a_missing_envoy_is_refused_before_anything_is_touched(manifests: Path, run_dir: Path) -> None:
    words = ("run", "--manifests", str(manifests), "--run-dir", str(run_dir), "--envoy", "/no/such/envoy")
    assert "/no/such/envoy is not an executable Envoy" in refused(deflector(*words))


@pytest.mark.privileged
def test_a_busy_address_is_refused_before_anything_is_touched(manifests: Path, run_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        address = f"127.0.0.1:{busy.getsockname()[1]}"
        words = ("run", "--manifests", str(manifests), "--run-dir", str(run_dir), "--hubble-address", address)
        assert f"cannot serve the Hubble API on {address}" in refused(deflector(*words))


@pytest.mark.privileged
def test_a_run_dir_that_is_too_deep_for_a_socket_is_refused(manifests: Path, tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 110)
    complaint = refused(deflector("run", "--manifests", str(manifests), "--run-dir", str(deep)))
    assert "shorten --run-dir" in complaint
    assert not deep.exists()


@pytest.mark.privileged
def test_a_host_that_cannot_be_set_up_is_left_as_it_was(manifests: Path, run_dir: Path, tmp_path: Path) -> None:
    """A namespace of its own, whose loopback device is still down."""
    words = ("run", "--manifests", str(manifests), "--run-dir", str(run_dir), "--bpffs", str(tmp_path / "bpf"))
    done = subprocess.run(
        ["unshare", "--net", str(DEFLECTOR), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert "ip link set lo up" in refused(done)
    assert not (tmp_path / "bpf").is_mount()


@pytest.mark.privileged
def test_the_check_finds_this_machine_ready() -> None:
    done = deflector("status", "--check")
    assert done.returncode == 0, done.stdout
    assert "this machine is ready" in done.stdout

"""What the chart lets containers do is enough, and nothing of it is too much: on this kernel, with a real Envoy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import conformance.node
from conformance.blueprint import star_wars
from conformance.errors import EnvironmentFailure
from conformance.galaxy import Galaxy, galaxy
from conformance.node import running
from tests.agent.galaxy import DROPPED, HOME, LANDING, PORT, Asker, http_rule, save
from tests.charts.chart import containers

pytestmark = pytest.mark.privileged

SETPRIV = 'exec setpriv --bounding-set {sets} --inh-caps {sets} --no-new-privs -- {program} "$@"\n'


def granted(container: str) -> tuple[str, ...]:
    found = containers()[container]["securityContext"]["capabilities"]
    assert found["drop"] == ["ALL"]
    return tuple(found["add"])


def confined(folder: Path, program: Path, capabilities: tuple[str, ...]) -> Path:
    """A command that is `program` with these capabilities at most, as in a container."""
    sets = ",".join(["-all", *(f"+{name.lower()}" for name in capabilities)])
    made = folder / f"confined-{program.name}-{len(capabilities)}"
    made.write_text("#!/bin/sh\n" + SETPRIV.format(sets=sets, program=program))
    made.chmod(0o755)
    return made


@pytest.fixture
def made() -> Iterator[Galaxy]:
    with galaxy(star_wars(), prefix="caps") as made:
        made.bpffs.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "bpf", "bpf", str(made.bpffs)], check=True)
        try:
            yield made
        finally:
            subprocess.run(["umount", str(made.bpffs)], check=False)


def envoy() -> Path:
    from agent.proxies.envoy import find_envoy

    return find_envoy(None)


async def test_agent_and_envoy_enforce_with_what_they_get(
    made: Galaxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = Path(sys.executable).parent / "deflector"
    agent = confined(tmp_path, program, granted("deflector-agent/agent"))
    proxy = confined(tmp_path, envoy(), granted("deflector-envoy/envoy"))
    monkeypatch.setattr(conformance.node, "DEFLECTOR", agent)
    save(made, "landing", http_rule(LANDING, {"org": "empire"}))
    asker = Asker(made)
    async with running(made, ("--envoy", str(proxy))):
        assert asker.ask("tiefighter", LANDING, 2.0) == "200"
        assert asker.ask("tiefighter", PORT, 2.0) == "403"
        assert asker.ask("xwing", HOME, 0.3) == DROPPED


@pytest.mark.parametrize("lacking", ["NET_ADMIN", "BPF", "PERFMON"])
async def test_the_agent_needs_each_and_says_so(
    made: Galaxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    rest = tuple(name for name in granted("deflector-agent/agent") if name != lacking)
    agent = confined(tmp_path, Path(sys.executable).parent / "deflector", rest)
    monkeypatch.setattr(conformance.node, "DEFLECTOR", agent)
    with pytest.raises(EnvironmentFailure, match=f"root is missing .*CAP_{lacking}"):
        async with running(made):
            pass


def test_sockets_of_the_dns_proxy_need_both_of_its_own() -> None:
    both = set(granted("deflector-proxies/dns-proxy"))
    assert _opens(both)
    for name in both:
        assert not _opens(both - {name}), f"{name} is not needed"


def _opens(capabilities: set[str]) -> bool:
    """Whether the DNS proxy's sockets can be made: a listener, and the one that answers."""
    code = (
        "import socket; from l7proxy.dns.sockets import Postman, listener; from policies.types import Protocol\n"
        "listener(socket.AF_INET, Protocol.UDP, 0); Postman()"
    )
    sets = ",".join(["-all", *(f"+{name.lower()}" for name in sorted(capabilities))])
    argv = ["setpriv", "--bounding-set", sets, "--inh-caps", sets, sys.executable, "-c", code]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0

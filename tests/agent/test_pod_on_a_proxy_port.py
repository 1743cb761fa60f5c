"""A pod may listen on any port, those of the proxy included, and is judged there like anywhere else."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from conformance import netns
from conformance.blueprint import NODE_V4, star_wars
from conformance.galaxy import Galaxy, galaxy
from conformance.node import running
from tests.agent.galaxy import DROPPED, Asker, http_rule, save

pytestmark = pytest.mark.privileged

FIRST = 14000  # the first port that the agent would hand out
PATIENCE = 10.0
ROOT, OTHER = ("GET", "/"), ("GET", "/other")


@pytest.fixture
def made() -> Iterator[Galaxy]:
    """The deathstar also serves files on the first proxy port."""
    with galaxy(star_wars(), prefix="ppod") as made:
        argv = [sys.executable, "-m", "http.server", str(FIRST), "--directory", str(made.folder / "curl")]
        server = subprocess.Popen(
            netns.inside(made.namespace("deathstar-1"), argv), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + PATIENCE
        while Asker(made).ask("tiefighter", ROOT, 1.0, FIRST) != "200":
            assert time.monotonic() < end, "the pod's server does not come up"
        yield made
        server.kill()
        server.wait()


async def test_a_rule_for_a_port_of_the_proxys_range_is_obeyed(made: Galaxy) -> None:
    save(made, "files", http_rule(ROOT, {"org": "empire"}, port=FIRST))
    asker = Asker(made)
    async with running(made) as node:
        status = await node.status()
        assert status is not None
        (slot,) = status["slots"]
        assert slot["port"] != FIRST
        assert asker.ask("tiefighter", ROOT, 2.0, FIRST) == "200"
        assert asker.ask("tiefighter", OTHER, 2.0, FIRST) == "403"
        assert asker.ask("xwing", ROOT, 0.3, FIRST) == DROPPED
        with netns.entered(made.namespace("tiefighter")):
            straight = socket.socket()
        with straight, pytest.raises(ConnectionRefusedError):
            straight.connect((NODE_V4, slot["port"]))

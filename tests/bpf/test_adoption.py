"""The data path outlives its agent: reloads and deaths break no connection, and a new agent adopts what it finds."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bpf import attach
from bpf import sys as bpfsys
from bpf.attach import Hook
from bpf.datapath import Datapath
from bpf.layout import LAYOUT_VERSION, meta_value
from bpf.loader import is_current, pinned_meta
from bpf.maps import Maps
from policies.types import Protocol
from tests.bpf.galaxy import echo, inside
from tests.bpf.stage import CLOSED, Stage

pytestmark = pytest.mark.privileged
QUICK = 0.3


@pytest.fixture(scope="module", autouse=True)
def servers(stage: Stage) -> None:
    stage.galaxy.serve(stage.galaxy.pods["server"].namespace, "::", 80, echo)


@pytest.fixture(autouse=True)
def policy(stage: Stage) -> None:
    """Answers to the client pass only because connection tracking remembers them."""
    stage.enforce("client", ingress=CLOSED, egress=stage.on(Protocol.TCP, 80, stage.allow("server")))
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")), egress=CLOSED)


@pytest.fixture
def live(stage: Stage) -> Iterator[socket.socket]:
    """A connection that was there before."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    with stage.galaxy.connect(client.namespace, (server.v4, 80)) as connection:
        assert says(connection)
        yield connection


def says(connection: socket.socket) -> bool:
    connection.sendall(b"still there?")
    return connection.recv(100) == b"still there?"


def programs_on(stage: Stage, pod: str) -> list[int]:
    with stage.on_node():
        index = stage.galaxy.pods[pod].ifindex
        return [f.program for hook in Hook for f in attach.filters(index, hook) if f.is_ours]


def write_meta(stage: Stage, value: bytes) -> None:
    fd = bpfsys.object_get(stage.datapath.options.pins / "meta")
    bpfsys.map_update(fd, struct.pack("=I", 0), value)
    os.close(fd)


def reopen(stage: Stage) -> str:
    stage.datapath.close()
    loaded = stage.open()
    stage.apply()
    return loaded.programs


def test_the_same_programs_are_adopted_and_nothing_changes(stage: Stage, live: socket.socket) -> None:
    before = programs_on(stage, "client")
    assert reopen(stage) == "adopted"
    assert programs_on(stage, "client") == before
    assert stage.datapath.apply(stage.wanted()).count == 0
    assert says(live)


def test_other_programs_take_over_maps_and_connections(stage: Stage, live: socket.socket) -> None:
    write_meta(stage, meta_value(b"an older digest of the programs ".ljust(32)))
    assert not is_current(stage.datapath.options)
    before = programs_on(stage, "client")
    maps = map_ids(stage)
    assert reopen(stage) == "cached"
    assert is_current(stage.datapath.options)
    assert map_ids(stage) == maps
    assert set(programs_on(stage, "client")).isdisjoint(before)
    assert says(live)


def map_ids(stage: Stage) -> dict[str, int]:
    from bpf.layout import MAPS

    held = Maps(stage.datapath.options.pins)
    try:
        return {
            spec.name: struct.unpack_from("=I", bpfsys._info(held.fd(spec.name), 88, "info"), 4)[0] for spec in MAPS
        }
    finally:
        held.close()


def test_maps_of_another_layout_are_replaced_and_filled_again(stage: Stage) -> None:
    maps = map_ids(stage)
    version = struct.pack("=I4x32s", LAYOUT_VERSION + 1, bytes(32))
    write_meta(stage, version)
    assert reopen(stage) == "cached"
    assert pinned_meta(stage.datapath.options) is not None
    assert set(map_ids(stage).values()).isdisjoint(maps.values())
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    with stage.galaxy.connect(client.namespace, (server.v4, 80)) as connection:
        assert says(connection)


def test_until_maps_of_another_layout_are_filled_the_old_ones_are_in_force(stage: Stage, live: socket.socket) -> None:
    write_meta(stage, struct.pack("=I4x32s", LAYOUT_VERSION + 1, bytes(32)))
    stage.datapath.close()
    stage.open()
    before = programs_on(stage, "client")
    assert says(live)
    stage.apply()
    assert set(programs_on(stage, "client")).isdisjoint(before)
    assert says(live)


def test_a_pin_that_is_gone_is_loaded_again(stage: Stage, live: socket.socket) -> None:
    (stage.datapath.options.pins / "to_pod").unlink()
    assert not is_current(stage.datapath.options)
    assert reopen(stage) == "cached"
    assert says(live)


KILLED = """
import sys, time
from pathlib import Path
from bpf.datapath import Datapath, Options
datapath = Datapath(Options(*map(Path, sys.argv[1:4])))
datapath.open()
print("open", flush=True)
time.sleep(60)
"""


def test_a_killed_agent_fails_no_connection(stage: Stage, live: socket.socket) -> None:
    options = stage.datapath.options
    stage.datapath.close()
    words = [sys.executable, "-c", KILLED, str(options.bpffs), str(options.run_dir), str(options.cache_dir)]
    root = Path(__file__).resolve().parents[2]
    with inside(stage.galaxy.node):
        agent = subprocess.Popen(words, stdout=subprocess.PIPE, cwd=root)
    assert agent.stdout is not None
    assert agent.stdout.readline() == b"open\n"
    agent.send_signal(signal.SIGKILL)
    agent.wait(10)
    assert says(live)
    assert reopen(stage) == "adopted"
    assert says(live)


def test_what_is_realised_is_read_from_the_kernel(stage: Stage) -> None:
    other = Datapath(stage.datapath.options)
    with stage.on_node():
        other.open()
    wanted = stage.wanted()
    assert other.realized.policy_entries() == wanted.policy_entries()
    assert other.realized.endpoints == wanted.endpoints
    assert other.realized.ipcache == wanted.ipcache
    other.close()


def test_an_agent_without_bcc_in_its_memory(stage: Stage) -> None:
    """bcc costs 71 MB: only the loader's process may import it."""
    code = "import sys; import bpf.datapath, bpf.features; sys.exit('bcc' in sys.modules or 'pyroute2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0

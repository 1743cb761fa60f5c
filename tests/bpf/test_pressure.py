"""Maps that are full: what does not fit is closed and named, everything else goes on."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bpf import redirects
from bpf import sys as bpfsys
from bpf.changes import Step
from bpf.constants import POLICY_BITS_PORT, Code, Reason, Scope
from bpf.datapath import DatapathError
from bpf.encoding import PolicyKey, policy_value
from bpf.layout import MAPS
from bpf.maps import Maps, MapsError
from policies.ir import Address
from policies.types import Protocol
from tests.bpf.galaxy import echo, inside
from tests.bpf.stage import CLOSED, Stage

pytestmark = pytest.mark.privileged
QUICK = 0.3
CT_ENTRIES = next(spec.max_entries for spec in MAPS if spec.name == "ct")


@pytest.fixture(scope="module", autouse=True)
def servers(stage: Stage) -> None:
    for pod in stage.galaxy.pods.values():
        stage.galaxy.serve(pod.namespace, "::", 80, echo)


@pytest.fixture(autouse=True)
def clean(stage: Stage) -> Iterator[None]:
    stage.reset()
    yield
    stage.reset()


def says(connection: socket.socket, word: bytes = b"hello") -> bool:
    connection.sendall(word)
    try:
        return connection.recv(100) == word
    except TimeoutError:
        return False


def test_a_group_that_does_not_fit_is_closed_and_the_others_go_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")))
    before = stage.node()
    many = stage.on(Protocol.TCP, 80, replace(stage.allow("client"), identities=tuple(range(1000, 1050))))
    monkeypatch.setattr(redirects, "CAPACITY", {**redirects.CAPACITY, "policy": 40})
    stage.rules["client"] = (stage.on(Protocol.TCP, 80, stage.allow("server")), many)
    with stage.on_node():
        (line,) = stage.datapath.program(stage.node(), {})
    assert line.startswith("policy of ")
    assert "needs 51 entries" in line
    assert "\n" not in line
    with pytest.raises(TimeoutError):
        stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK)
    stage.wait_drop(Reason.POLICY_DENIED, source=client.v4)
    with pytest.raises(TimeoutError):
        stage.galaxy.connect(server.namespace, (client.v4, 80), QUICK)
    with stage.on_node():
        assert stage.datapath.program(before, {}) == ()
    stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK).close()


def test_peers_that_do_not_fit_leave_the_last_good_state_in_force(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.TCP, 80, stage.allow("client")))
    monkeypatch.setattr(redirects, "CAPACITY", {**redirects.CAPACITY, "ipcache": 40})
    crowded = replace(stage.node(), addresses=tuple(Address(f"10.1.0.{n}/32", 2000 + n) for n in range(50)))
    with pytest.raises(DatapathError, match="50 entries for map ipcache, which holds 40: select fewer peers"):
        stage.datapath.program(crowded, {})
    with stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK) as connection:
        assert says(connection)


def test_a_map_that_the_kernel_calls_full_is_named(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(next(spec for spec in MAPS if spec.name == "policy"), max_entries=3)
    fd = bpfsys.map_create(small)
    maps = Maps(stage.datapath.options.pins)
    kept = maps._fds["policy"]
    maps._fds["policy"] = fd
    try:
        keys = PolicyKey(POLICY_BITS_PORT, 1, 0, 1, 6, 80).pack_all(range(1000, 1010))
        step = Step("policy", keys, policy_value(Code.ALLOW, Scope.PORTS) * 10)
        with pytest.raises(MapsError, match=r"map policy is full \(\d+ entries, 10 to write\): select fewer"):
            maps.take(step)
        held = bpfsys.map_contents(fd, small)[0]
        identities = [struct.unpack_from("=I", held, at + 8)[0] for at in range(0, len(held), small.key_size)]
        assert sorted(identities) == [1000, 1001, 1002]  # in the given order, up to where it failed
    finally:
        maps._fds["policy"] = kept
        maps.close()
        os.close(fd)


def flood(stage: Stage) -> None:
    """More connections than connection tracking remembers, from one pod to the other; two entries for each."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    rounds = CT_ENTRIES // 2 // 60_000 + 1
    for _ in range(rounds):
        with inside(client.namespace):
            sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sending:
            for port in range(1000, 61_000):
                sending.sendto(b"x", (server.v4, port))


def test_a_flood_that_evicts_every_connection_breaks_and_opens_none(stage: Stage) -> None:
    """A pod that means harm can make the kernel forget: what is allowed is found again, what is denied stays denied."""
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.enforce("server", ingress=stage.on(Protocol.ANY, None, stage.allow("client")))
    with (
        stage.galaxy.connect(client.namespace, (server.v4, 80), QUICK) as mine,
        stage.galaxy.connect(server.namespace, (client.v4, 80), QUICK) as theirs,
    ):
        assert says(mine)
        assert says(theirs)
        flood(stage)
        assert says(mine)
        assert says(theirs)
        flood(stage)
        stage.enforce("server", ingress=CLOSED)
        assert not says(mine)
        assert says(theirs)

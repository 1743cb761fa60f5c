"""Addresses of names on the real kernel: in force at once, whatever policy does meanwhile, and known to be in use."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from bpf import sys
from bpf.constants import Reason
from bpf.datapath import DatapathError
from bpf.encoding import address_key, ipcache_value, owned
from bpf.layout import CT_KEY, CT_VALUE, IPCACHE_VALUE, MapSpec, MapType
from bpf.live import connected
from bpf.loader import Options
from policies.ir import Address
from policies.types import IDENTITY_FIRST_LOCAL, Protocol
from tests.bpf.galaxy import WORLD4, WORLD6, echo
from tests.bpf.stage import CLOSED, OPEN, Stage

pytestmark = pytest.mark.privileged
QUICK = 0.3
NAME = IDENTITY_FIRST_LOCAL + 7
OTHER = NAME + 1


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


@pytest.fixture(scope="module", autouse=True)
def servers(stage: Stage) -> None:
    for space in (stage.galaxy.world, stage.galaxy.pods["server"].namespace):
        stage.galaxy.serve(space, "::", 80, echo)
    stage.peers |= {"name": NAME, "other": OTHER}


@pytest.fixture(autouse=True)
def clean(stage: Stage) -> Iterator[None]:
    stage.reset()
    yield
    stage.datapath.forget(map(packed, (WORLD4, WORLD6, stage.galaxy.pods["server"].v4)))
    stage.reset()


def says(stage: Stage, to: str) -> bool:
    try:
        with stage.galaxy.connect(stage.galaxy.pods["client"].namespace, (to, 80), QUICK) as connection:
            connection.sendall(b"hello")
            return connection.recv(10) == b"hello"
    except TimeoutError:
        return False


def held(stage: Stage, address: bytes) -> bytes | None:
    """What a lookup of this address gives."""
    return sys.map_lookup(stage.datapath.maps.fd("ipcache"), address_key(address), IPCACHE_VALUE.size)


@pytest.mark.parametrize("to", [WORLD4, WORLD6])
def test_the_first_packet_to_a_learned_address_passes(stage: Stage, to: str) -> None:
    stage.enforce("client", CLOSED, stage.on(Protocol.TCP, 80, stage.allow("name")))
    assert not says(stage, to)
    stage.datapath.learn({packed(to): NAME})
    assert says(stage, to)
    stage.datapath.forget([packed(to)])
    assert not says(stage, to)


def test_an_address_moves_with_the_policy_that_is_programmed(stage: Stage) -> None:
    """From an identity that is no more to one that is new."""
    stage.enforce("client", CLOSED, stage.on(Protocol.TCP, 80, stage.allow("name")))
    stage.datapath.learn({packed(WORLD4): NAME})
    stage.datapath.stage({packed(WORLD4): OTHER, packed(WORLD6): OTHER})
    assert held(stage, packed(WORLD4)) == ipcache_value(NAME)
    stage.enforce("client", CLOSED, stage.on(Protocol.TCP, 80, stage.allow("other")))
    assert says(stage, WORLD4)
    assert says(stage, WORLD6)
    stage.datapath.stage({packed(WORLD4): None})
    stage.apply()
    assert not says(stage, WORLD4)


def test_what_is_learned_meanwhile_is_newer_than_what_was_staged(stage: Stage) -> None:
    stage.datapath.stage({packed(WORLD4): OTHER, packed(WORLD6): None})
    stage.datapath.learn({packed(WORLD4): NAME, packed(WORLD6): NAME})
    stage.apply()
    assert held(stage, packed(WORLD4)) == held(stage, packed(WORLD6)) == ipcache_value(NAME)


def test_what_was_learned_outlives_changes_of_policy(stage: Stage) -> None:
    stage.datapath.learn({packed(WORLD4): NAME})
    rule = stage.on(Protocol.TCP, 80, stage.allow("name"))
    stage.enforce("client", CLOSED, rule)
    assert says(stage, WORLD4)
    stage.prefixes = {f"{WORLD4}/32": OTHER, "203.0.113.0/24": OTHER}
    stage.apply()
    assert says(stage, WORLD4)
    stage.prefixes = {}
    stage.apply()
    assert says(stage, WORLD4)
    stage.prefixes = {f"{WORLD4}/32": OTHER}
    stage.apply()
    stage.datapath.forget([packed(WORLD4)])
    assert held(stage, packed(WORLD4)) == ipcache_value(OTHER)


def test_a_live_connection_is_judged_by_what_was_learned(stage: Stage) -> None:
    stage.enforce("client", OPEN, stage.on(Protocol.TCP, 80, stage.allow("world"), stage.deny("name")))
    client = stage.galaxy.pods["client"]
    with stage.galaxy.connect(client.namespace, (WORLD4, 80), QUICK) as connection:
        connection.sendall(b"a")
        assert connection.recv(10) == b"a"
        stage.datapath.learn({packed(WORLD4): NAME})
        connection.sendall(b"b")
        stage.wait_drop(Reason.POLICY_DENY, destination=WORLD4)


@pytest.mark.parametrize("to", [WORLD4, WORLD6])
def test_what_one_endpoint_knows_is_open_to_it_alone(stage: Stage, to: str) -> None:
    client, server = (stage.galaxy.pods[name] for name in ("client", "server"))
    stage.enforce("client", CLOSED, stage.on(Protocol.TCP, 80, stage.allow("name")))
    own = owned(packed(to), client.ifindex)
    stage.datapath.learn({owned(packed(to), server.ifindex): NAME})
    assert not says(stage, to)
    stage.datapath.learn({own: NAME})
    assert says(stage, to)
    stage.datapath.forget([own])
    assert not says(stage, to)
    stage.datapath.forget([owned(packed(to), server.ifindex)])


def test_what_one_endpoint_knows_of_a_pod_is_nothing(stage: Stage) -> None:
    client, server = (stage.galaxy.pods[name] for name in ("client", "server"))
    stage.enforce("client", CLOSED, stage.on(Protocol.TCP, 80, stage.allow("name")))
    own = owned(packed(server.v4), client.ifindex)
    stage.datapath.learn({own: NAME})
    assert not says(stage, server.v4)
    stage.datapath.forget([own])


def test_nobody_gives_a_name_to_a_pod(stage: Stage) -> None:
    server = stage.galaxy.pods["server"]
    stage.datapath.learn({packed(server.v4): NAME})
    assert held(stage, packed(server.v4)) == ipcache_value(stage.peers["server"], server.ifindex)


def test_a_name_is_never_out_of_force_while_policy_changes(stage: Stage) -> None:
    """One thread programs prefixes by the thousand, the learned ones among them; another learns; a third looks."""
    learned = [bytes([198, 51, 100, n]) for n in range(100)]
    crowd = [Address(f"198.51.{n >> 8}.{n & 255}/32", OTHER) for n in range(30_000)]
    node = stage.node()
    programs = [replace(node, addresses=tuple(sorted([*node.addresses, *some]))) for some in (crowd, crowd[::2], ())]
    done, wrong = threading.Event(), []
    taught: list[bytes] = []

    def look() -> None:
        while not done.is_set():
            for address in list(taught):
                if held(stage, address) != ipcache_value(NAME):
                    wrong.append(address)

    def work() -> None:
        with stage.on_node():
            for _ in range(3):
                for one in programs:
                    stage.datapath.program(one, {})
        done.set()

    threads = [threading.Thread(target=act) for act in (look, work)]
    for thread in threads:
        thread.start()
    waits = []
    for address in learned:
        begun = time.perf_counter()
        stage.datapath.learn({address: NAME})
        waits.append(time.perf_counter() - begun)
        taught.append(address)
        if not done.is_set():
            time.sleep(0.002)
    for thread in threads:
        thread.join(60)
    assert wrong == []
    assert sorted(waits)[len(waits) // 2] < 0.05
    stage.apply()
    assert all(held(stage, address) == ipcache_value(NAME) for address in learned)
    stage.datapath.forget(learned)
    assert not any(held(stage, address) == ipcache_value(NAME) for address in learned)


def test_a_full_map_forgets_what_it_had_no_room_for(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    from bpf import peers

    monkeypatch.setattr(peers, "CAPACITY", {"ipcache": 1})
    stage.datapath.learn({packed(WORLD4): NAME})
    with pytest.raises(DatapathError, match="room"):
        stage.datapath.learn({packed(WORLD6): NAME})
    assert stage.datapath.peers.learned == 1
    assert held(stage, packed(WORLD6)) is None or held(stage, packed(WORLD6)) != ipcache_value(NAME)


def test_what_an_earlier_agent_has_learned_stays_if_it_is_learned_again(stage: Stage) -> None:
    """Before the first policy is programmed; else it goes."""
    from bpf.datapath import Datapath

    stage.datapath.learn({packed(WORLD4): NAME, packed(WORLD6): NAME})
    options: Options = stage.datapath.options
    again = Datapath(options)
    with stage.on_node():
        again.open()
        again.learn({packed(WORLD4): NAME})
        assert held(stage, packed(WORLD6)) == ipcache_value(NAME)
        again.program(stage.node(), {})
        again.close()
    assert held(stage, packed(WORLD4)) == ipcache_value(NAME)
    assert held(stage, packed(WORLD6)) != ipcache_value(NAME)


# --- connections ------------------------------------------------------------------------------------------------


def test_connections_are_found_by_their_remote_address(stage: Stage) -> None:
    client, server = stage.galaxy.pods["client"], stage.galaxy.pods["server"]
    stage.forget_connections()
    asked = [packed(a) for a in (WORLD4, WORLD6, server.v4, client.v4, "192.0.2.1")]
    with (
        stage.galaxy.connect(client.namespace, (WORLD4, 80)),
        stage.galaxy.connect(server.namespace, (WORLD6, 80)),
        stage.galaxy.connect(client.namespace, (server.v4, 80)),
    ):
        assert stage.datapath.connected(asked) == {
            packed(WORLD4): {client.ifindex},
            packed(WORLD6): {server.ifindex},
            packed(server.v4): {client.ifindex},  # but nobody has opened a connection to the client
        }
        assert stage.datapath.connected(asked[:1]) == {packed(WORLD4): {client.ifindex}}
        assert stage.datapath.connected([]) == {}
    stage.forget_connections()
    assert stage.datapath.connected(asked) == {}


def test_an_address_of_one_family_is_not_that_of_another(stage: Stage) -> None:
    client = stage.galaxy.pods["client"]
    with stage.galaxy.connect(client.namespace, (WORLD4, 80)):
        assert stage.datapath.connected([packed(WORLD4).ljust(16, b"\0")]) == {}


def test_a_walk_finds_what_stays_while_others_come_and_go() -> None:
    """In a map of its own; a hundred entries stay, and thousands come and go."""
    spec = MapSpec("walked", MapType.LRU_HASH, CT_KEY.size, CT_VALUE.size, 20_000)
    fd = sys.map_create(spec)
    far = (time.monotonic_ns() + 10**12).to_bytes(8, "little") + b"\2" + bytes(15)

    def key(remote: bytes, number: int) -> bytes:
        return bytes(16) + remote.ljust(16, b"\0") + (7).to_bytes(4, "little") + number.to_bytes(4, "big") + b"\6\4\0\0"

    lasting = [bytes([198, 51, 100, n]) for n in range(100)]
    for address in lasting:
        sys.map_update(fd, key(address, 1), far)
    done = threading.Event()

    def flood() -> None:
        number = 0
        while not done.is_set():
            sys.map_update(fd, key(b"\x0a\0\0\1", number), far)
            sys.map_delete(fd, key(b"\x0a\0\0\1", number - 500 & 0xFFFFFFFF))
            number += 1

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(20):
            assert connected(fd, spec, lasting) == {address: {7} for address in lasting}
    finally:
        done.set()
        thread.join(10)

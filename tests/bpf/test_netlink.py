"""The netlink codec against any bytes, and against the kernel."""

from __future__ import annotations

import asyncio
import errno
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpf import links
from bpf import netlink as nl
from tests.bpf.galaxy import NODE4, NODE6, Galaxy, inside
from tests.bpf.stage import Stage

payloads = st.lists(st.tuples(st.integers(1, 0x3FFF), st.binary(max_size=40)), max_size=8, unique_by=lambda a: a[0])


@given(payloads)
def test_attributes_come_back_as_they_went(given_ones: list[tuple[int, bytes]]) -> None:
    raw = b"".join(nl.attribute(kind, payload) for kind, payload in given_ones)
    assert nl.attributes(raw) == dict(given_ones)
    assert nl.attributes(nl.attributes(nl.nested(7, raw))[7]) == dict(given_ones)


@given(payloads, st.binary(max_size=3))
def test_a_malformed_rest_is_left_out(given_ones: list[tuple[int, bytes]], rest: bytes) -> None:
    raw = b"".join(nl.attribute(kind, payload) for kind, payload in given_ones)
    assert nl.attributes(raw + rest) == dict(given_ones)


@given(st.binary(max_size=400))
def test_any_bytes_are_read_to_an_end(raw: bytes) -> None:
    list(nl.messages(raw))
    nl.attributes(raw)


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_messages_of_one_datagram_are_told_apart(bodies: list[bytes]) -> None:
    raw = b""
    for number, body in enumerate(bodies):
        raw += nl.HEADER.pack(nl.HEADER.size + len(body), 16, 0, number, 0) + body + b"\0" * (-len(body) % 4)
    assert [(sequence, body) for _, _, sequence, body in nl.messages(raw)] == list(enumerate(bodies))


@pytest.mark.privileged
def test_the_kernels_own_words_are_in_the_error(stage: Stage) -> None:
    with stage.on_node(), nl.Netlink() as net, pytest.raises(nl.NetlinkError, match="add nothing") as refused:
        net.change(
            nl.RTM_NEWLINK, links.LINK.pack(0, 0, 0, 0, 0) + nl.text(3, "x" * 15), "add nothing", nl.NLM_F_CREATE
        )
    assert refused.value.errno in (errno.EINVAL, errno.EOPNOTSUPP)


@pytest.mark.privileged
def test_only_a_host_route_over_a_veth_leads_to_a_pod(stage: Stage) -> None:
    pod = stage.galaxy.pods["client"]
    with stage.on_node():
        assert links.route_device(pod.v4) == links.route_device(pod.v6) == pod.ifindex
        assert links.route_device("203.0.113.2") is None  # on the link of the uplink, which is a veth too
        assert links.route_device("198.51.100.1") is None  # by the gateway
        assert links.route_device(NODE4) is None
        assert links.route_device(NODE6) is None
        assert links.route_device("127.0.0.1") is None
        stage.galaxy.on_node("ip", "route", "add", "blackhole", "10.9.9.9/32")
        assert links.route_device("10.9.9.9") is None


@pytest.mark.privileged
def test_the_hosts_addresses_are_all_that_pods_may_hear_from_it(stage: Stage) -> None:
    with stage.on_node():
        found = links.host_addresses()
    assert {NODE4, NODE6, "169.254.1.1", "fe80::1"} <= set(found)
    assert "127.0.0.1" not in found
    assert "::1" not in found


@pytest.mark.privileged
async def test_a_new_pod_is_noticed_in_the_event_loop(stage: Stage) -> None:
    """And netlink works while an asyncio loop runs in the thread."""
    with stage.on_node():
        changes = links.Changes()
    changes.drain()
    noticed = asyncio.Event()
    asyncio.get_running_loop().add_reader(changes.fileno(), noticed.set)
    pod = await asyncio.to_thread(Galaxy.pod, stage.galaxy, "late")
    async with asyncio.timeout(5):
        await noticed.wait()
    assert changes.drain()
    assert changes.moved()
    assert not changes.moved()
    asyncio.get_running_loop().remove_reader(changes.fileno())
    changes.close()
    with inside(stage.galaxy.node):
        assert links.route_device(pod.v4) == pod.ifindex
        found = links.links()[pod.ifindex]
    assert (found.kind, found.up) == ("veth", True)


@pytest.mark.privileged
def test_filters_that_come_and_go_move_no_pod(stage: Stage) -> None:
    pod = stage.galaxy.pod("filtered")
    with stage.on_node():
        changes = links.Changes()
        device = links.links()[pod.ifindex].name
        for act in ("add", "del"):
            subprocess.run(["tc", "qdisc", act, "dev", device, "clsact"], check=True)
            assert changes.drain()
            assert not changes.moved()
        subprocess.run(["ip", "link", "set", device, "down"], check=True)
        assert changes.drain()
        assert changes.moved()
        changes.close()


def test_an_error_without_words_is_still_one_line() -> None:
    body = struct.pack("=i", -errno.EPERM) + nl.HEADER.pack(16, 16, 0, 1, 0)
    with pytest.raises(nl.NetlinkError, match="do it: Operation not permitted"):
        nl._raise(0, body, "do it")

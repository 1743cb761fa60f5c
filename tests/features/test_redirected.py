"""The listener whole, as it is served: connections redirected to it by nftables' TPROXY in a network namespace.

In the node the redirection is BPF's (bpf/); to Envoy both look the same: an accepted socket whose own address is the
one that the client meant.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from conformance.netns import entered
from policies.ir import Slot
from policies.types import Direction
from tests.features.live import ControlPlane, HttpClient, Origin, control_plane, live_envoy, origin_on
from tests.xds.make import node, rule, slot
from xds.resources import FILTER, LISTENER
from xds.translator import translate

pytestmark = pytest.mark.privileged

PROXY_PORT = 10_000
SERVER = {4: "10.9.9.9", 6: "fd09::9"}
CLIENT = {4: "10.9.9.1", 6: "fd09::1"}

# What leaves the client for port 80 is marked and comes in again through lo, where TPROXY hands it to the proxy. The
# proxy's own packets carry its marks, and pass.
RULES = f"""
table inet xdstest {{
  chain in {{
    type filter hook prerouting priority mangle;
    iif lo meta mark 0x200 meta nfproto ipv4 tcp dport 80 tproxy ip to :{PROXY_PORT} accept
    iif lo meta mark 0x200 meta nfproto ipv6 tcp dport 80 tproxy ip6 to :{PROXY_PORT} accept
  }}
  chain out {{
    type route hook output priority mangle;
    tcp dport 80 meta mark 0 meta mark set 0x200
  }}
}}
"""


def run(*command: str, text: str | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, input=text).stdout


@pytest.fixture
def space() -> Iterator[str]:
    """A namespace with a client's and a server's addresses, and redirection between them."""
    name = f"xdstest{os.getpid()}"
    run("ip", "netns", "add", name)
    try:
        inside = ("ip", "-n", name)
        run(*inside, "link", "set", "lo", "up")
        for family, prefix in ((4, "32"), (6, "128")):
            for address in (SERVER[family], CLIENT[family]):
                run(*inside, f"-{family}", "address", "add", f"{address}/{prefix}", "dev", "lo")
            run(*inside, f"-{family}", "rule", "add", "fwmark", "0x200/0xf00", "lookup", "2004")
            run(*inside, f"-{family}", "route", "add", "local", "default", "dev", "lo", "table", "2004")
        run("ip", "netns", "exec", name, "nft", "-f", "-", text=RULES)
        yield name
    finally:
        run("ip", "netns", "del", name)


@dataclass
class Galaxy:
    plane: ControlPlane
    space: str
    origins: dict[int, Origin]

    def socket(self, family: int) -> socket.socket:
        with entered(self.space):
            return socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6)

    async def connect(self, family: int, port: int = 80) -> HttpClient:
        """From the client's address to the server's."""
        made = self.socket(family)
        made.setblocking(False)
        made.bind((CLIENT[family], 0))
        await asyncio.get_running_loop().sock_connect(made, (SERVER[family], port))
        return HttpClient(*await asyncio.open_connection(sock=made))

    async def apply(self, one: Slot) -> None:
        self.plane.cache.publish(translate(node(one), {one.name: PROXY_PORT}))
        result = await self.plane.ads.wait_acked({LISTENER: [one.name], FILTER: [one.name]}, 10)
        assert result.is_complete, result


@pytest.fixture
async def galaxy(space: str, tmp_path: Path) -> AsyncIterator[Galaxy]:
    async with AsyncExitStack() as stack:
        plane = await stack.enter_async_context(control_plane(tmp_path))
        made = Galaxy(plane, space, {})
        for family in (4, 6):
            listening = made.socket(family)
            listening.bind((SERVER[family], 80))
            made.origins[family] = await stack.enter_async_context(origin_on(listening))
        await stack.enter_async_context(live_envoy(tmp_path, plane.socket, netns=space))
        yield made


@pytest.mark.parametrize("family", [4, 6])
async def test_a_redirected_connection_is_judged_and_goes_where_it_was_going(galaxy: Galaxy, family: int) -> None:
    await galaxy.apply(slot("web", rule("GET", "/a")))
    client = await galaxy.connect(family)
    assert [(await client.get(path)).status for path in ("/a", "/b")] == [200, 403]
    assert galaxy.origins[family].peers == [CLIENT[family]], "the server sees the client's own address"
    allowed, denied = await galaxy.plane.logs.until(lambda seen: len(seen) >= 2)
    for entry in (allowed, denied):
        local = entry.common_properties.downstream_local_address.socket_address
        remote = entry.common_properties.downstream_remote_address.socket_address
        assert (local.address, local.port_value, remote.address) == (SERVER[family], 80, CLIENT[family])


@pytest.mark.parametrize(("direction", "marks"), [(Direction.INGRESS, "ca"), (Direction.EGRESS, "db")])
async def test_both_sides_carry_the_marks_of_their_direction(galaxy: Galaxy, direction: Direction, marks: str) -> None:
    await galaxy.apply(slot("web", rule("GET"), direction=direction))
    client = await galaxy.connect(4)
    assert (await client.get("/")).status == 200
    sockets = run("ip", "netns", "exec", galaxy.space, "ss", "-tnHe", "state", "established")
    found = {field for line in sockets.splitlines() for field in line.split() if field.startswith("fwmark")}
    assert found == {f"fwmark:0x{mark}00" for mark in marks}


@pytest.mark.parametrize("family", [4, 6])
async def test_a_connection_straight_to_the_proxy_port_is_closed_without_a_word(galaxy: Galaxy, family: int) -> None:
    await galaxy.apply(slot("web", rule("GET")))
    client = await galaxy.connect(family, PROXY_PORT)
    assert await client.at_end()
    assert galaxy.origins[family].heads == []

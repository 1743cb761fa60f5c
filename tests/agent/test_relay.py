"""`deflector relay` as a process, before nodes that speak TLS or not, behind clients that do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.observer import Observer
from flows.peers import PeerBook, PeerNode, server_name
from flows.rpc.server import Server
from flows.rpc.tls import ServerTls, TlsFiles
from flows.server import start
from tests.flows.certificates import Authority
from tests.flows.make import Galaxy, drop

DEFLECTOR = Path(sys.executable).parent / "deflector"
WILDCARD = "*.default.hubble-grpc.cilium.io"
BOUND = 20.0  # seconds


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


async def run(*argv: str) -> tuple[int, str]:
    """Exit code and everything that it prints."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "HOME": "/nonexistent"},
    )
    async with asyncio.timeout(BOUND):
        out, _ = await process.communicate()
    return process.returncode or 0, out.decode()


@dataclass
class Cluster:
    """Nodes by name; all of them tell of all."""

    observers: dict[str, Observer]
    addresses: dict[str, str]
    peers: PeerBook
    servers: dict[str, Server]

    async def until(self, *argv: str, words: str) -> str:
        """Ask again and again until the answer has these words."""
        async with asyncio.timeout(BOUND):
            while True:
                code, out = await run(*argv)
                if code == 0 and words in out:
                    return out
                await asyncio.sleep(0.1)


@asynccontextmanager
async def cluster(*names: str, tls: TlsFiles | None = None) -> AsyncIterator[Cluster]:
    observers = {name: Observer(lambda name=name: Galaxy(node_name=name), version="0.1.0") for name in names}  # type: ignore[misc]
    peers = PeerBook()
    addresses = {name: f"127.0.0.1:{free_port()}" for name in names}
    servers = {
        name: await start(observers[name], [addresses[name]], peers, ServerTls(tls, print) if tls else None)
        for name in names
    }
    peers.update(PeerNode(name, addresses[name], server_name(name, "default") if tls else "") for name in names)
    try:
        yield Cluster(observers, addresses, peers, servers)
    finally:
        for server in servers.values():
            await server.stop(None)


@asynccontextmanager
async def relay(*flags: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The process, and its address."""
    address = f"127.0.0.1:{free_port()}"
    process = await asyncio.create_subprocess_exec(
        *(str(DEFLECTOR), "relay", "--listen-address", address, "--health-listen-address", "", *flags),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process, address
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(BOUND):
            _, err = await process.communicate()
        assert process.returncode == 0, err.decode()


def ours(*words: str) -> list[str]:
    return [str(DEFLECTOR), *words]


def clients() -> list[str]:
    """Ours, and hubble where somebody has it."""
    stock = os.environ.get("HUBBLE_CLI")
    return [str(DEFLECTOR), *([stock] if stock else [])]


async def test_two_nodes_are_one_stream_and_the_missing_one_is_named() -> None:
    async with cluster("n1", "n2") as here:
        here.observers["n1"].packets([drop()])
        here.observers["n2"].packets([drop()])
        flags = ("--peer-service", here.addresses["n1"], "--disable-client-tls", "--disable-server-tls")
        page = f"127.0.0.1:{free_port()}"
        async with relay(*flags, "--metrics-listen-address", page) as (_, address):
            await here.until(*ours("status", "--server", address), words="Connected Nodes: 2/2")
            for client in clients():
                code, out = await run(client, "observe", "--server", address, "--print-node-name", "--last", "1")
                assert code == 0, out
                assert [line.split("[")[1].split("]")[0] for line in out.splitlines()] == ["n1", "n2"]
                code, out = await run(client, "list", "nodes", "--server", address)
                assert [line.split()[:2] for line in out.splitlines()[1:]] == [["n1", "Connected"], ["n2", "Connected"]]
                code, out = await run(client, "list", "namespaces", "--server", address)
                assert out.split() == ["NAMESPACE", "default"]
            metrics = await here.until("curl", "-s", f"http://{page}/metrics", words="deflector_relay_peers 2.0")
            assert 'hubble_relay_pool_peer_connection_status{status="READY"} 2.0' in metrics
            await here.servers["n2"].stop(None)
            for client in clients():
                out = await here.until(client, "status", "--server", address, words="Unavailable Nodes: 1")
                assert out.rstrip().endswith("- n2")
                code, out = await run(client, "observe", "--server", address, "--last", "1")
                assert code == 0
                assert "1 nodes are unavailable: n2" in out


async def test_a_follower_of_two_nodes(tmp_path: Path) -> None:
    async with cluster("n1", "n2") as here:
        flags = ("--peer-service", here.addresses["n2"], "--disable-client-tls", "--disable-server-tls")
        async with relay(*flags) as (_, address):
            await here.until(*ours("status", "--server", address), words="Connected Nodes: 2/2")
            for client in clients():
                process = await asyncio.create_subprocess_exec(
                    *(client, "observe", "-f", "--server", address, "--print-node-name"),
                    stdout=asyncio.subprocess.PIPE,
                    env={**os.environ, "HOME": "/nonexistent"},
                )
                assert process.stdout is not None
                try:
                    async with asyncio.timeout(BOUND):
                        while not all(observer.readers for observer in here.observers.values()):
                            await asyncio.sleep(0.01)
                        for name in ("n1", "n2", "n1"):
                            here.observers[name].packets([drop()])
                            assert f"[{name}]".encode() in await process.stdout.readline()
                finally:
                    process.terminate()
                    await process.wait()
                async with asyncio.timeout(BOUND):
                    while any(observer.readers for observer in here.observers.values()):
                        await asyncio.sleep(0.01)


async def test_mutual_tls_on_both_sides_and_certificates_that_change(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "pki")
    files = TlsFiles(*authority.sign("node", WILDCARD), (authority.certificate,))
    own, shown = authority.sign("relay", "relay.hubble-relay.cilium.io"), authority.sign("user", "user")
    server = authority.sign("relay-server", "ui.hubble-relay.cilium.io")
    async with cluster("n1", "n2", tls=files) as here:
        here.observers["n2"].packets([drop()])
        flags = (
            *("--peer-service", here.addresses["n1"], "--tls-hubble-server-ca-files", str(authority.certificate)),
            *("--tls-hubble-client-cert-file", str(own[0]), "--tls-hubble-client-key-file", str(own[1])),
            *("--tls-relay-server-cert-file", str(server[0]), "--tls-relay-server-key-file", str(server[1])),
            *("--tls-relay-client-ca-files", str(authority.certificate), "--retry-timeout", "1s"),
        )
        async with relay(*flags) as (_, address):
            to = ("--server", f"tls://{address}", "--tls-server-name", "ui.hubble-relay.cilium.io")
            trust = ("--tls-ca-cert-files", str(authority.certificate))
            as_user = ("--tls-client-cert-file", str(shown[0]), "--tls-client-key-file", str(shown[1]))
            await here.until(*ours("status", *to, *trust, *as_user), words="Connected Nodes: 2/2")
            for client in clients():
                code, out = await run(client, "observe", *to, *trust, *as_user, "--last", "1")
                assert (code, out.count("Policy denied DROPPED")) == (0, 1), out
                unseen = ("--server", f"tls://{address}", "--tls-allow-insecure")
                code, out = await run(client, "observe", *unseen, *as_user, "--last", "1")
                assert (code, out.count("Policy denied DROPPED")) == (0, 1), out
                assert (await run(client, "observe", *to, *trust))[0] != 0, "it shows no certificate"
                assert (await run(client, "observe", *to, *as_user))[0] != 0, "it trusts another authority"
            # another authority for all, one after the other: nobody needs to be started anew
            successor = Authority(tmp_path / "new", "authority")
            for name, hosts in (("node", WILDCARD), ("relay", "relay.hubble-relay.cilium.io")):
                for old, new in zip((f"{name}.crt", f"{name}.key"), successor.sign(name, hosts), strict=True):
                    os.replace(new, authority.folder / old)
            kept = authority.certificate.read_bytes()
            authority.certificate.write_bytes(kept + successor.certificate.read_bytes())
            await here.servers["n2"].stop(None)
            here.servers["n2"] = await start(
                here.observers["n2"], [here.addresses["n2"]], here.peers, ServerTls(files, print)
            )
            await here.until(*ours("status", *to, *trust, *as_user), words="Connected Nodes: 2/2")


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ((), "give --tls-hubble-server-ca-files, or --disable-client-tls"),
        (("--disable-client-tls",), "give --tls-relay-server-cert-file"),
        (("--disable-client-tls", "--disable-server-tls", "--retry-timeout", "soon"), "'soon' is no duration"),
        (("--disable-client-tls", "--disable-server-tls", "--listen-address", "nowhere"), "(--listen-address)"),
        (
            ("--disable-server-tls", "--tls-hubble-server-ca-files", "/no/ca.crt"),
            "certificate for nodes: /no/ca.crt: No such file or directory",
        ),
        (
            ("--disable-client-tls", "--tls-relay-server-cert-file", "/no/a", "--tls-relay-server-key-file", "/no/b"),
            "certificate of the relay: /no/a: No such file or directory",
        ),
    ],
)
async def test_what_cannot_work_is_one_line(flags: tuple[str, ...], complaint: str) -> None:
    code, out = await run(str(DEFLECTOR), "relay", *flags)
    assert (code, out.count("\n")) == (2, 1)
    assert complaint in out

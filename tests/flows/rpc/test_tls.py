"""Whom the server lets in by TLS, and that certificates change under living connections."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from flows.rpc.framing import framed
from flows.rpc.limits import Limits
from flows.rpc.server import Server
from flows.rpc.tls import ServerTls, TlsError, TlsFiles
from tests.flows.certificates import Authority
from tests.flows.rpc.raw import BOUND, Raw, echo

HOST = "n1.default.hubble-grpc.cilium.io"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "pki")


@asynccontextmanager
async def serving(files: TlsFiles, complaints: list[str], **limits: int) -> AsyncIterator[int]:
    """The port of a server with these files."""
    server = Server({"/t/Echo": echo}, Limits(**limits))
    await server.listen("127.0.0.1:0", ServerTls(files, complaints.append))
    try:
        yield server.ports[0]
    finally:
        await server.stop(None)


def trusting(*authorities: Authority) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["h2"])
    for one in authorities:
        context.load_verify_locations(one.certificate)
    return context


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext, host: str = HOST) -> AsyncIterator[Raw]:
    async with asyncio.timeout(BOUND):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


async def answered(port: int, context: ssl.SSLContext) -> bool:
    """Whether a call is answered. In TLS 1.3 a client learns at its first words that it was not welcome."""
    try:
        async with connected(port, context) as client:
            return (await client.status(client.ask("/t/Echo")))[0] == "0"
    except (OSError, AssertionError):
        return False


async def test_calls_are_answered_under_tls(authority: Authority) -> None:
    async with serving(TlsFiles(*authority.sign("server", HOST)), []) as port:
        assert await answered(port, trusting(authority))
        async with connected(port, trusting(authority)) as client:
            spoken: ssl.SSLObject = client.writer.get_extra_info("ssl_object")
            assert (spoken.version(), spoken.selected_alpn_protocol()) == ("TLSv1.3", "h2")
            big = client.ask("/t/Echo", framed([b"x" * 10_000]))
            assert (await client.status(big))[0] == "0"


async def test_nothing_older_than_tls_1_3_and_nothing_but_http2(authority: Authority) -> None:
    old, other, none = (
        trusting(authority),
        trusting(authority),
        ssl.create_default_context(cafile=authority.certificate),
    )
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    other.set_alpn_protocols(["http/1.1"])
    async with serving(TlsFiles(*authority.sign("server", HOST)), []) as port:
        for context in (old, other, none):
            assert not await answered(port, context)
        assert await answered(port, trusting(authority))


async def test_only_clients_that_an_authority_vouches_for(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority(tmp_path / "other", "stranger")
    files = TlsFiles(*authority.sign("server", HOST), (authority.certificate,))
    async with serving(files, []) as port:
        known, unknown = trusting(authority), trusting(authority)
        known.load_cert_chain(*authority.sign("relay", "x.hubble-relay.cilium.io"))
        unknown.load_cert_chain(*stranger.sign("relay", "x.hubble-relay.cilium.io"))
        assert await answered(port, known)
        assert not await answered(port, unknown)
        assert not await answered(port, trusting(authority))


async def test_new_certificates_are_shown_and_old_connections_live_on(authority: Authority, tmp_path: Path) -> None:
    successor = Authority(tmp_path / "new", "successor")
    certificate, key = authority.sign("server", HOST)
    complaints: list[str] = []
    async with serving(TlsFiles(certificate, key), complaints) as port:
        async with connected(port, trusting(authority)) as client:
            for path, new in zip((certificate, key), successor.sign("server", HOST), strict=True):
                os.replace(new, path)
            assert await answered(port, trusting(successor))
            assert not await answered(port, trusting(authority))
            assert (await client.status(client.ask("/t/Echo")))[0] == "0"
        key.write_text("torn")
        assert await answered(port, trusting(successor))
        assert await answered(port, trusting(successor))
        assert complaints == [complaints[0]]
        assert f"{key}" in complaints[0] or f"{certificate}" in complaints[0]
        key.unlink()
        assert await answered(port, trusting(successor))
        assert complaints[1].startswith(f"{key}: No such file or directory; the certificate that was read before")


async def test_clients_that_an_authority_no_longer_vouches_for_are_out(authority: Authority, tmp_path: Path) -> None:
    trusted = tmp_path / "clients.crt"
    trusted.write_bytes(authority.certificate.read_bytes())
    client = trusting(authority)
    client.load_cert_chain(*authority.sign("relay"))
    async with serving(TlsFiles(*authority.sign("server", HOST), (trusted,)), []) as port:
        assert await answered(port, client)
        trusted.write_bytes(Authority(tmp_path / "other").certificate.read_bytes())
        assert not await answered(port, client)


async def test_who_never_comes_to_the_point_keeps_nobody_out(authority: Authority) -> None:
    """Connections without a handshake have places of their own, and give way to those who come after them."""
    async with serving(TlsFiles(*authority.sign("server", HOST)), [], connections=2) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
        async with asyncio.timeout(BOUND):
            for reader, writer in silent[:3]:
                with suppress(ConnectionResetError):
                    assert await reader.read() == b""
                writer.close()
        assert await answered(port, trusting(authority))
        for reader, writer in silent[3:]:
            writer.write(b"this is no TLS\r\n\r\n")
            with suppress(ConnectionResetError):
                await asyncio.wait_for(reader.read(), BOUND)
            writer.close()
        assert await answered(port, trusting(authority))


@pytest.mark.parametrize(
    ("which", "content", "complaint"),
    [
        ("certificate", None, "No such file or directory"),
        ("key", None, "No such file or directory"),
        ("certificate", "nothing", "is no PEM file"),
        ("ca", "nothing", "is no PEM file"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    authority: Authority, which: str, content: str | None, complaint: str
) -> None:
    certificate, key = authority.sign("server", HOST)
    paths = {"certificate": certificate, "key": key, "ca": authority.certificate}
    paths[which].unlink()
    if content is not None:
        paths[which].write_text(content)
    with pytest.raises(TlsError, match=complaint):
        ServerTls(TlsFiles(certificate, key, (authority.certificate,)), print)


def test_a_key_that_is_not_the_certificates_is_named(authority: Authority) -> None:
    certificate, _ = authority.sign("server", HOST)
    _, other = authority.sign("other", HOST)
    with pytest.raises(TlsError, match=r"other\.key: is not the key of the certificate"):
        ServerTls(TlsFiles(certificate, other), print)

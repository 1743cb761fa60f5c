"""Where the API server is and who we are: kubeconfigs, pods' accounts, tokens that are renewed, plugins, TLS."""

from __future__ import annotations

import base64
import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web

from agent.cluster.client import ApiServer
from agent.cluster.credentials import Access, Pem, TokenFile, find_access, from_kubeconfig, in_cluster
from agent.cluster.errors import ApiError, Unreachable
from agent.errors import EnvironmentProblem
from tests.fakes.apiserver import ApiServerFake


def kubeconfig(folder: Path, user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    path = folder / "config"
    text = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "mine"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://192.0.2.1:6443/", **cluster}}],
        "users": [{"name": "u", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(text))
    return path


def test_a_kubeconfig_says_where_and_who(tmp_path: Path) -> None:
    access = from_kubeconfig(kubeconfig(tmp_path, {"token": "abc"}, **{"proxy-url": "http://proxy:3128"}))
    assert access.server == "https://192.0.2.1:6443"
    assert (access.namespace, access.proxy) == ("mine", "http://proxy:3128")
    assert access.identity.authorization() == "Bearer abc"
    basic = from_kubeconfig(kubeconfig(tmp_path, {"username": "a", "password": "b"}))
    assert basic.identity.authorization() == f"Basic {base64.b64encode(b'a:b').decode()}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it has no current-context"),
        ("a: [", "is no kubeconfig"),
        ("current-context: x", "contexts has no 'x'"),
        ("current-context: [x]", "current-context must be text"),
    ],
)
def test_what_is_wrong_with_a_kubeconfig_is_said_in_a_line(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(EnvironmentProblem, match=words) as caught:
        from_kubeconfig(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_anything_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(EnvironmentProblem, match="set KUBECONFIG"):
        find_access()
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, {"token": "x"})))
    assert find_access().server == "https://192.0.2.1:6443"


def test_a_pods_token_is_read_again_when_it_is_renewed(tmp_path: Path) -> None:
    for name, text in (("token", "old\n"), ("ca.crt", ""), ("namespace", "kube-system")):
        (tmp_path / name).write_text(text)
    access = in_cluster({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert access.server == "https://[fd00::1]:443"
    assert access.namespace == "kube-system"
    assert access.identity.authorization() == "Bearer old"
    (tmp_path / "next").write_text("new and longer")
    (tmp_path / "next").rename(tmp_path / "token")
    assert access.identity.authorization() == "Bearer new and longer"
    (tmp_path / "token").unlink()
    assert access.identity.authorization() == "Bearer new and longer"  # between two versions there may be none


PLUGIN = """#!/bin/sh
echo "$KUBERNETES_EXEC_INFO" > {folder}/asked
printf x >> {folder}/times
echo '{{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1",
  "status":{{"token":"'$TOKEN'","expirationTimestamp":"{ends}"}}}}'
"""


def test_a_plugin_is_asked_until_its_token_ends(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    user = {
        "exec": {
            "apiVersion": "client.authentication.k8s.io/v1",
            "command": "./plugin",
            "env": [{"name": "TOKEN", "value": "abc"}],
            "provideClusterInfo": True,
        }
    }
    for ends, times in (("2999-01-01T00:00:00Z", 1), ("2000-01-01T00:00:00Z", 3)):
        (tmp_path / "times").unlink(missing_ok=True)
        plugin.write_text(PLUGIN.format(folder=tmp_path, ends=ends))
        plugin.chmod(0o755)
        identity = from_kubeconfig(kubeconfig(tmp_path, user)).identity
        for _ in range(3):
            assert identity.authorization() == "Bearer abc"
        assert (tmp_path / "times").read_text() == "x" * times
    assert "192.0.2.1" in (tmp_path / "asked").read_text()


@pytest.mark.parametrize(
    ("script", "words"),
    [("#!/bin/sh\necho no >&2; exit 1\n", "failed: no"), ("#!/bin/sh\necho nonsense\n", "no ExecCredential")],
)
def test_a_plugin_that_fails_is_named(tmp_path: Path, script: str, words: str) -> None:
    (tmp_path / "plugin").write_text(script)
    (tmp_path / "plugin").chmod(0o755)
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin"}}
    identity = from_kubeconfig(kubeconfig(tmp_path, user)).identity
    with pytest.raises(EnvironmentProblem, match=words):
        identity.authorization()


def test_a_missing_plugin_says_how_to_install_it(tmp_path: Path) -> None:
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1beta1",
        "command": "no-such-plugin",
        "installHint": "Get it at example.org.",
    }
    with pytest.raises(EnvironmentProblem, match=r"Get it at example\.org"):
        from_kubeconfig(kubeconfig(tmp_path, {"exec": plugin})).identity.authorization()


async def version(_request: web.Request) -> web.Response:
    return web.json_response({"major": "1"})


async def welcome(_request: web.Request) -> web.Response:
    return web.Response(text="<html>welcome</html>")


async def elsewhere(_request: web.Request) -> web.Response:
    return web.Response(status=302, headers={"Location": "/version"})


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, a server named apiserver.example, and a client."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
            "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt")  # fmt: skip
    for name, extension in (
        ("server", "subjectAltName=DNS:apiserver.example"),
        ("client", "basicConstraints=CA:FALSE"),
    ):
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}",
                "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        (folder / "ext").write_text(extension)
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", "ext", "-out", f"{name}.crt")  # fmt: skip
    return folder


async def test_the_server_is_checked_and_so_are_we(certificates: Path, tmp_path: Path) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.crt"))
    context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    app = web.Application()
    app.router.add_get("/version", version)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    server = f"https://127.0.0.1:{runner.addresses[0][1]}"

    def data(name: str) -> str:
        return base64.b64encode((certificates / name).read_bytes()).decode()

    us = {"client-certificate-data": data("client.crt"), "client-key-data": data("client.key")}
    named = {"certificate-authority": str(certificates / "ca.crt"), "tls-server-name": "apiserver.example"}
    try:
        for cluster in (named, {**named, "certificate-authority-data": data("ca.crt")}):
            async with ApiServer(from_kubeconfig(kubeconfig(tmp_path, us, **cluster, server=server))) as api:
                assert await api.ask("/version") == {"major": "1"}
        for user, cluster in (({}, named), (us, {**named, "tls-server-name": "other.example"}), (us, {})):
            async with ApiServer(from_kubeconfig(kubeconfig(tmp_path, user, **cluster, server=server))) as api:
                with pytest.raises(Unreachable):
                    await api.ask("/version")
    finally:
        await runner.cleanup()


async def test_a_token_that_is_refused_is_read_again(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old")
    async with ApiServerFake(token="new").serve() as fake, ApiServer(Access(fake.url, TokenFile(token))) as api:
        with pytest.raises(ApiError) as caught:
            await api.ask("/version")
        assert caught.value.status == 401
        token.write_text("new")
        assert (await api.ask("/version"))["major"] == "1"


async def test_what_is_no_api_server_is_called_that() -> None:
    app = web.Application()
    app.router.add_get("/version", welcome)
    app.router.add_get("/other", elsewhere)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        async with ApiServer(Access(f"http://127.0.0.1:{runner.addresses[0][1]}")) as api:
            with pytest.raises(Unreachable, match="is it one"):
                await api.ask("/version")
            with pytest.raises(ApiError, match="302"):
                await api.ask("/other")
    finally:
        await runner.cleanup()


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("nonsense")
    with pytest.raises(EnvironmentProblem, match=r"ca\.crt"):
        Access("https://192.0.2.1", authority=Pem(tmp_path / "ca.crt")).tls()

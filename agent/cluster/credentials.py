"""Where the API server is and who we are to it: from a kubeconfig, or from inside a pod. Reads files, runs plugins.

Tokens are read again when their file changes (a bound token lives an hour, the kubelet replaces it), and so are the
certificates. Keys that a kubeconfig holds inside never touch the disk.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import yaml

from agent.cluster.plugin import ExecPlugin
from agent.errors import EnvironmentProblem

IN_CLUSTER: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_KUBECONFIG: Final = Path("~/.kube/config")


class Identity(Protocol):
    """Who we are: the Authorization header of the moment, or "" for none."""

    def authorization(self) -> str: ...

    def refused(self) -> None:
        """The server did not accept it: get another one, if there is."""


class Anonymous:
    """Nobody, or whoever the client certificate says."""

    def authorization(self) -> str:
        return ""

    def refused(self) -> None:
        return


@dataclass(slots=True)
class FixedHeader:
    """A token or a password that stands in the kubeconfig."""

    header: str

    def authorization(self) -> str:
        return self.header

    def refused(self) -> None:
        return


@dataclass(slots=True)
class TokenFile:
    """A token that somebody renews in a file."""

    path: Path
    _token: str = ""
    _stamp: tuple[int, ...] = ()

    def authorization(self) -> str:
        try:
            found = os.stat(self.path)
            stamp = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size)
            if stamp != self._stamp:
                self._token, self._stamp = self.path.read_text().strip(), stamp
        except OSError as error:
            if not self._token:
                raise EnvironmentProblem(f"{self.path}: {error.strerror}: it should hold a token") from None
        return f"Bearer {self._token}"

    def refused(self) -> None:
        self._stamp = ()


@dataclass(frozen=True, slots=True)
class Pem:
    """Certificates or a key: a file that may change, or the text itself."""

    path: Path | None = None
    text: bytes = b""

    def __bool__(self) -> bool:
        return bool(self.path or self.text)

    def stamp(self) -> tuple[int, ...]:
        """Changes when the file does."""
        if self.path is None:
            return ()
        try:
            found = os.stat(self.path)
        except OSError:
            return ()
        return (found.st_ino, found.st_mtime_ns, found.st_size)


@dataclass(slots=True)
class Access:
    """How to reach one API server. `server` is its URL without a trailing slash; `proxy` "" leaves that to the
    environment (HTTPS_PROXY, NO_PROXY)."""

    server: str
    identity: Identity = field(default_factory=Anonymous)
    authority: Pem = Pem()
    certificate: Pem = Pem()
    key: Pem = Pem()
    server_name: str = ""
    insecure: bool = False
    proxy: str = ""
    namespace: str = "default"
    _context: ssl.SSLContext | None = None
    _stamps: tuple[tuple[int, ...], ...] = ()

    def tls(self) -> ssl.SSLContext | None:
        """The TLS side of it, made again when a file has changed; None for plain HTTP. Raises EnvironmentProblem."""
        if not self.server.startswith("https:"):
            return None
        pems = (self.authority, self.certificate, self.key)
        stamps = tuple(pem.stamp() for pem in pems)
        if self._context is None or stamps != self._stamps:
            try:
                self._context = self._make_context()
            except (OSError, ssl.SSLError) as error:
                if self._context is None:
                    names = ", ".join(str(pem.path) for pem in pems if pem.path) or "the kubeconfig"
                    raise EnvironmentProblem(f"certificates of the API server ({names}): {_words(error)}") from None
            self._stamps = stamps
        return self._context

    def _make_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(
            cafile=str(self.authority.path) if self.authority.path else None,
            cadata=self.authority.text.decode("ascii", "replace") if self.authority.text else None,
        )
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate:
            with _as_file(self.certificate) as certificate, _as_file(self.key or self.certificate) as key:
                context.load_cert_chain(certificate.name, key.name)
        return context


class _as_file:
    """A file name for what OpenSSL reads only from files; memory, where it was none."""

    def __init__(self, pem: Pem) -> None:
        self.name = str(pem.path)
        self._fd = -1
        if pem.path is None:
            self._fd = os.memfd_create("pem")
            os.write(self._fd, pem.text)
            self.name = f"/proc/self/fd/{self._fd}"

    def __enter__(self) -> _as_file:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def find_access(kubeconfig: Path | None = None, context: str = "") -> Access:
    """What was named; else $KUBECONFIG; else this pod's service account; else ~/.kube/config.

    Raises EnvironmentProblem when there is none, or when it cannot be read or used.
    """
    named = kubeconfig or _first_existing(os.environ.get("KUBECONFIG", ""))
    if named is not None:
        return from_kubeconfig(named, context)
    if os.environ.get("KUBERNETES_SERVICE_HOST") and (IN_CLUSTER / "token").exists():
        return in_cluster(os.environ)
    default = DEFAULT_KUBECONFIG.expanduser()
    if default.exists():
        return from_kubeconfig(default, context)
    raise EnvironmentProblem("no API server is known: run in a pod, set KUBECONFIG, or give --kubeconfig")


def in_cluster(environment: Mapping[str, str], folder: Path = IN_CLUSTER) -> Access:
    """The service account of the pod that this is."""
    host, port = environment["KUBERNETES_SERVICE_HOST"], environment.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    space = folder / "namespace"
    return Access(
        f"https://{host}:{port}",
        TokenFile(folder / "token"),
        authority=Pem(folder / "ca.crt"),
        namespace=space.read_text().strip() if space.exists() else "default",
    )


def from_kubeconfig(path: Path, context: str = "") -> Access:
    """The context of that name, or the current one. Raises EnvironmentProblem naming file and field."""
    try:
        raw = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
    except OSError as error:
        raise EnvironmentProblem(f"{path}: {error.strerror}: give another --kubeconfig") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EnvironmentProblem(f"{path} is no kubeconfig: {' '.join(str(error).split())}") from None
    return _Kubeconfig(path, raw if isinstance(raw, dict) else {}).access(context)


class _Kubeconfig:
    """A kubeconfig file, with words for what is wrong in it."""

    def __init__(self, path: Path, raw: Mapping[str, Any]) -> None:
        self._path = path
        self._raw = raw

    def access(self, context: str) -> Access:
        name = context or self._text(self._raw, "current-context")
        if not name:
            raise self._problem("it has no current-context: name one with --context")
        chosen = self._named("contexts", "context", name)
        cluster = self._named("clusters", "cluster", self._text(chosen, "cluster"))
        user_name = self._text(chosen, "user")
        user = self._named("users", "user", user_name) if user_name else {}
        server = self._text(cluster, "server").rstrip("/")
        if not server.startswith(("https://", "http://")):
            raise self._problem(f"cluster {self._text(chosen, 'cluster')}: server {server!r} is no URL")
        return Access(
            server,
            self._identity(user, server),
            authority=self._pem(cluster, "certificate-authority"),
            certificate=self._pem(user, "client-certificate"),
            key=self._pem(user, "client-key"),
            server_name=self._text(cluster, "tls-server-name"),
            insecure=bool(cluster.get("insecure-skip-tls-verify")),
            proxy=self._text(cluster, "proxy-url"),
            namespace=self._text(chosen, "namespace") or "default",
        )

    def _identity(self, user: Mapping[str, Any], server: str) -> Identity:
        if "auth-provider" in user:
            raise self._problem("users[].user.auth-provider is no more since Kubernetes 1.26: use exec")
        if file := self._text(user, "tokenFile"):
            return TokenFile(self._path.parent / file)
        if token := self._text(user, "token"):
            return FixedHeader(f"Bearer {token}")
        if self._text(user, "username"):
            pair = f"{self._text(user, 'username')}:{self._text(user, 'password')}"
            return FixedHeader(f"Basic {base64.b64encode(pair.encode()).decode()}")
        plugin = user.get("exec")
        if isinstance(plugin, dict):
            return ExecPlugin.of(plugin, self._path.parent, server)
        return Anonymous()

    def _pem(self, raw: Mapping[str, Any], name: str) -> Pem:
        if data := self._text(raw, f"{name}-data"):
            try:
                return Pem(text=binascii.a2b_base64("".join(data.split())))
            except ValueError:
                raise self._problem(f"{name}-data is no base64") from None
        file = self._text(raw, name)
        return Pem(self._path.parent / file) if file else Pem()

    def _named(self, items: str, item: str, name: str) -> Mapping[str, Any]:
        entries = self._raw.get(items)
        for entry in entries if isinstance(entries, list) else []:
            if isinstance(entry, dict) and entry.get("name") == name and isinstance(entry.get(item), dict):
                found: Mapping[str, Any] = entry[item]
                return found
        raise self._problem(f"{items} has no {name!r}")

    def _text(self, raw: Mapping[str, Any], name: str) -> str:
        value = raw.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._problem(f"{name} must be text")
        return value

    def _problem(self, words: str) -> EnvironmentProblem:
        return EnvironmentProblem(f"{self._path}: {words}")


def _first_existing(paths: str) -> Path | None:
    """The first file of a list in KUBECONFIG. (Kubectl merges them; one is what tools need.)"""
    named = [Path(part).expanduser() for part in paths.split(os.pathsep) if part]
    return next((path for path in named if path.exists()), named[0] if named else None)


def _words(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

"""What Helm refuses in sight of a cluster, and what it leaves as it is there."""

from __future__ import annotations

import base64
import ssl
import time
from copy import deepcopy

import helm_python
import pytest

from tests.charts.api_server import cluster
from tests.charts.chart import NAMESPACE, RELEASE, Object

CILIUM = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "cilium", "namespace": "kube-system", "labels": {"k8s-app": "cilium"}},
}
FLANNEL = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "kube-flannel-ds", "namespace": "kube-flannel"},
}
CERTIFICATES = ("hubble-relay-client-certs", "hubble-relay-server-certs", "hubble-server-certs")


def secrets(made: list[Object]) -> dict[str, Object]:
    """What an API server would keep of them: Helm marks them as its own."""
    own = {"meta.helm.sh/release-name": RELEASE, "meta.helm.sh/release-namespace": NAMESPACE}
    found = {item["metadata"]["name"]: deepcopy(item) for item in made if item["kind"] == "Secret"}
    assert sorted(found) == ["deflector-ca", *CERTIFICATES]
    for item in found.values():
        item["metadata"]["annotations"] = {**item["metadata"].get("annotations", {}), **own}
    return found


def pem(secret: Object, key: str) -> str:
    return base64.b64decode(secret["data"][key]).decode()


def test_a_cluster_with_another_cni_is_welcome() -> None:
    with cluster(FLANNEL) as galaxy:
        made = galaxy.install()
    assert {"DaemonSet", "Deployment", "Secret"} <= {item["kind"] for item in made}


@pytest.mark.parametrize("where", ["kube-system", "cilium"])
def test_a_cluster_that_runs_cilium_is_refused(where: str) -> None:
    cilium = {**CILIUM, "metadata": {**CILIUM["metadata"], "namespace": where}}
    with (
        cluster(FLANNEL, cilium) as galaxy,
        pytest.raises(helm_python.HelmError, match=rf"runs Cilium \(DaemonSet {where}/cilium\).*Remove Cilium first"),
    ):
        galaxy.install()


def test_certificates_are_kept_as_long_as_they_serve() -> None:
    with cluster() as galaxy:
        first = secrets(galaxy.install())
        galaxy.present = list(first.values())
        again = secrets(galaxy.install())
        elsewhere = secrets(galaxy.install({"clusterName": "hoth"}))
    assert {name: item["data"] for name, item in again.items()} == {n: item["data"] for n, item in first.items()}
    assert elsewhere["deflector-ca"]["data"] == first["deflector-ca"]["data"]
    for name in ("hubble-relay-client-certs", "hubble-server-certs"):  # these say the cluster's name
        assert elsewhere[name]["data"]["tls.crt"] != first[name]["data"]["tls.crt"]
    assert elsewhere["hubble-relay-server-certs"]["data"] == first["hubble-relay-server-certs"]["data"]


def test_certificates_are_renewed_by_the_same_authority_before_they_end() -> None:
    with cluster() as galaxy:
        first = secrets(galaxy.install({"hubble": {"tls": {"days": 90}}}))
        for name in CERTIFICATES:
            annotations = first[name]["metadata"]["annotations"]
            assert 59 < (int(annotations["deflector/renew-after"]) - time.time()) / 86400 <= 60
            annotations["deflector/renew-after"] = str(int(time.time()) - 1)
        galaxy.present = list(first.values())
        again = secrets(galaxy.install())
    for name in CERTIFICATES:
        assert again[name]["data"]["ca.crt"] == first[name]["data"]["ca.crt"]
        assert again[name]["data"]["tls.crt"] != first[name]["data"]["tls.crt"]


def test_nodes_and_relay_believe_each_other() -> None:
    """The certificates, by OpenSSL: each vouches for the name that the other side asks for."""
    with cluster() as galaxy:
        made = secrets(galaxy.install({"clusterName": "hoth"}))
    asked = {
        "hubble-server-certs": ("node1.hoth.hubble-grpc.cilium.io", "hubble-peer.hoth.hubble-grpc.cilium.io"),
        "hubble-relay-server-certs": (f"hubble-relay.{NAMESPACE}.svc", "localhost"),
    }
    for name, hosts in asked.items():
        for host in hosts:
            assert _handshake(made[name], made["hubble-relay-client-certs"], host)


def _handshake(server: Object, client: Object, host: str) -> bool:
    listening = _context(server, ssl.PROTOCOL_TLS_SERVER)
    listening.verify_mode = ssl.CERT_REQUIRED
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = _context(client, ssl.PROTOCOL_TLS_CLIENT).wrap_bio(to_client, to_server, server_hostname=host)
    answering = listening.wrap_bio(to_server, to_client, server_side=True)
    done = set()
    for side in [asking, answering] * 4:
        try:
            side.do_handshake()
            done.add(side)
        except ssl.SSLWantReadError:
            continue
    return done == {asking, answering}


def _context(secret: Object, protocol: int) -> ssl.SSLContext:
    from tempfile import TemporaryDirectory

    made = ssl.SSLContext(protocol)
    made.load_verify_locations(cadata=pem(secret, "ca.crt"))
    with TemporaryDirectory() as folder:
        path = f"{folder}/both.pem"
        with open(path, "w") as file:
            file.write(pem(secret, "tls.crt") + pem(secret, "tls.key"))
        made.load_cert_chain(path)
    return made

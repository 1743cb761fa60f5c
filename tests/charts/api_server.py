"""As much of an API server as Helm asks of one before it installs: what there is, and the objects that are there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import helm_python

from tests.charts.chart import CHART, NAMESPACE, RELEASE, Object, Values, parsed

SERVED = {
    "v1": ("ConfigMap", "Namespace", "Pod", "Secret", "Service", "ServiceAccount"),
    "apps/v1": ("DaemonSet", "Deployment"),
    "admissionregistration.k8s.io/v1": ("ValidatingWebhookConfiguration",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
}
CLUSTERWIDE = ("ClusterRole", "ClusterRoleBinding", "Namespace", "ValidatingWebhookConfiguration")
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def plural(kind: str) -> str:
    return kind.lower().removesuffix("y") + ("ies" if kind.endswith("y") else "s")


@dataclass
class Cluster:
    """What is there, and what a dry run of Helm makes of the chart in sight of it."""

    present: list[Object] = field(default_factory=list)
    url: str = ""

    def install(self, values: Values | None = None) -> list[Object]:
        """The objects that Helm would install. Raises helm_python.HelmError."""
        with helm_python.Config(
            kubeconfig_content=json.dumps(self._kubeconfig()), namespace=NAMESPACE, storage_driver="memory"
        ) as config:
            release = config.install(CHART, RELEASE, dict(values or {}), dry_run="server")
        return list(parsed(release["manifest"]))

    def _kubeconfig(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "galaxy", "cluster": {"server": self.url}}],
            "users": [{"name": "leia", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "galaxy", "user": "leia"}}],
            "current-context": "here",
        }

    def answer(self, path: str) -> Object | None:
        """The document at a path; None if there is none."""
        fixed = _documents().get(path)
        return fixed if fixed is not None else self._objects(path)

    def _objects(self, path: str) -> Object | None:
        for version, kinds in SERVED.items():
            head = "/api/v1/" if version == "v1" else f"/apis/{version}/"
            if path.startswith(head):
                words = path.removeprefix(head).split("/")
                namespace = words[1] if words[0] == "namespaces" and len(words) > 2 else None
                kind, *name = words[2:] if namespace else words
                kinds = tuple(served for served in kinds if plural(served) == kind)
                return self._found(version, kinds, namespace, name)
        return None

    def _found(self, version: str, kinds: Iterable[str], namespace: str | None, name: list[str]) -> Object | None:
        for kind in kinds:
            found = [
                item
                for item in self.present
                if item["kind"] == kind and namespace in (None, item["metadata"].get("namespace"))
            ]
            if name:
                return next((item for item in found if item["metadata"]["name"] == name[0]), None)
            return {"apiVersion": version, "kind": f"{kind}List", "metadata": {}, "items": found}
        return None


def _documents() -> dict[str, Object]:
    groups = []
    documents: dict[str, Object] = {
        "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/openapi/v3": {"paths": {}},
    }
    schemas = documents["/openapi/v3"]["paths"]
    for version, kinds in SERVED.items():
        resources = [
            {"name": plural(kind), "kind": kind, "namespaced": kind not in CLUSTERWIDE, "verbs": VERBS}
            for kind in kinds
        ]
        root = f"api/{version}" if version == "v1" else f"apis/{version}"
        documents[f"/{root}"] = {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        documents[f"/openapi/v3/{root}"] = _schema(version, kinds)
        schemas[root] = {"serverRelativeURL": f"/openapi/v3/{root}?hash=1"}
        if version != "v1":
            named = {"groupVersion": version, "version": version.split("/")[1]}
            groups.append({"name": version.split("/")[0], "versions": [named], "preferredVersion": named})
    documents["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    return documents


def _schema(version: str, kinds: Iterable[str]) -> Object:
    """Says of each kind that the server itself checks the fields of what it is given: then Helm does not."""
    group, _, number = version.rpartition("/")
    asked = {"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}
    paths = {}
    for kind in kinds:
        about = {"group": group, "version": number, "kind": kind}
        paths[f"/{plural(kind)}"] = {"patch": {"parameters": [asked], "x-kubernetes-group-version-kind": about}}
    return {"openapi": "3.0.0", "info": {"title": "galaxy", "version": "1"}, "paths": paths}


@contextmanager
def cluster(*present: Object) -> Iterator[Cluster]:
    """A cluster in which these objects are."""
    made = Cluster(list(present))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = made.answer(self.path.split("?")[0])
            missing = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
            content = json.dumps(missing if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Questions are no news."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

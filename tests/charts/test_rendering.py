"""What the chart renders, as goldens, and what others say of it: Helm's linter, and Kubernetes' schemas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import helm_python
import pytest

from tests.charts import kubernetes
from tests.charts.chart import CHART, Object, containers, objects, one, pod_specs, render, without_secrets
from tests.charts.kubernetes import NEWEST, OLDEST

GOLDENS = Path(__file__).parent / "goldens"
WORLDS: dict[str, dict[str, Any]] = {
    "default": {},
    "everything": {
        "clusterName": "hoth",
        "image": {"repository": "registry.rebels.example/deflector", "digest": f"sha256:{'ab' * 32}"},
        "imagePullSecrets": ["rebels"],
        "policy": {"enforcement": "always", "nodeSelectorLabels": True, "secretNamespaces": ["echo-base"]},
        "node": {"mountBpffs": True},
        "agent": {"extraArgs": ["--hubble-redact-kafka-apikey=true"], "podAnnotations": {"a": "b"}},
        "envoy": {"concurrency": 2, "podAnnotations": {"a": "b"}},
        "proxies": {"tag": "0.0.9"},
        "operator": {"webhook": {"enabled": True}},
        "hubble": {
            "redact": {"enabled": True, "allowHeaders": ["x-droid"], "denyHeaders": ["x-plans"]},
            "export": {"otlpEndpoint": "collector:4317", "otlpInsecure": True},
            "tls": {"method": "certManager", "issuer": {"kind": "ClusterIssuer", "name": "echo-base"}},
            "relay": {"clientCertificates": True},
        },
        "metrics": {
            "openMetrics": True,
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "dashboards": {"enabled": True, "namespace": "grafana", "annotations": {"folder": "Deflector"}},
        },
    },
    "bare": {
        "operator": {"replicas": 1, "installCRDs": False},
        "hubble": {"tls": {"enabled": False}},
        "metrics": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "removed": {"remove": True},
}


@pytest.mark.parametrize("world", WORLDS)
def test_goldens(world: str, golden: Callable[[Path, str], None], request: pytest.FixtureRequest) -> None:
    made = render(WORLDS[world])
    shown = {path: text for path, text in made.items() if world == "default" or text != render().get(path)}
    shown.pop("dashboards.yaml", None)  # nothing but the files that are in the chart
    for path, text in shown.items():
        if world == "default" or not path.startswith("tls/helm"):
            golden(GOLDENS / world / path, without_secrets(text))
    stale = {file for file in (GOLDENS / world).rglob("*.*") if str(file.relative_to(GOLDENS / world)) not in shown}
    if request.config.getoption("--goldens"):
        for file in stale:
            file.unlink()
    else:
        assert not stale


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_knows_every_field(world: str, version: str) -> None:
    for made in objects(WORLDS[world]):
        kubernetes.validate(made, version)


def test_the_oldest_kubernetes_is_the_one_that_is_checked() -> None:
    assert helm_python.Chart.load(CHART).metadata["kubeVersion"] == f">={OLDEST}.0-0"


@pytest.mark.parametrize("world", WORLDS)
def test_helms_linter_has_nothing_to_say(world: str) -> None:
    report = helm_python.lint(CHART, WORLDS[world], strict=True)
    worse_than_information = [message for message in report["messages"] if message["severity"] > 1]
    assert (report["errors"], worse_than_information) == ([], [])


def test_no_name_is_there_twice() -> None:
    for world in WORLDS.values():
        names = [(made["kind"], made["metadata"].get("namespace"), made["metadata"]["name"]) for made in objects(world)]
        assert len(names) == len(set(names))


def test_everything_is_where_the_release_is() -> None:
    elsewhere = {"Role/deflector-agent-secrets", "RoleBinding/deflector-agent-secrets"}
    for made in objects(WORLDS["everything"]):
        name, namespace = f"{made['kind']}/{made['metadata']['name']}", made["metadata"].get("namespace")
        if name not in elsewhere and "dashboard" not in name:
            is_clusterwide = made["kind"].startswith(("ClusterRole", "ValidatingWebhook"))
            assert namespace == (None if is_clusterwide else "deflector-system"), name


def test_what_selects_pods_selects_some() -> None:
    """Labels of Services, NetworkPolicies and the like are those of pods that there are."""
    made = objects(WORLDS["everything"])
    pods = [
        item["spec"]["template"]["metadata"]["labels"] for item in made if item["kind"] in ("DaemonSet", "Deployment")
    ]
    for item in made:
        wanted = _selected(item)
        if wanted is not None:
            assert sum(wanted.items() <= labels.items() for labels in pods) == 1, item["metadata"]["name"]


def _selected(made: Object) -> dict[str, str] | None:
    spec = made.get("spec", {})
    match made["kind"]:
        case "Service":
            found = spec["selector"]
        case "NetworkPolicy":
            found = spec["podSelector"]["matchLabels"]
        case "DaemonSet" | "Deployment" | "PodDisruptionBudget":
            found = spec["selector"]["matchLabels"]
        case _:
            return None
    assert isinstance(found, dict)
    return found


def test_monitors_find_the_services_of_metrics() -> None:
    made = objects(WORLDS["everything"])
    services = [item for item in made if item["kind"] == "Service"]
    for monitor in (item for item in made if item["kind"] == "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        ports = {
            port["name"]
            for item in services
            if wanted <= item["metadata"]["labels"].items()
            for port in item["spec"]["ports"]
        }
        assert {endpoint["port"] for endpoint in monitor["spec"]["endpoints"]} <= ports


def test_what_is_mounted_is_there() -> None:
    for world in WORLDS.values():
        for pod, spec in pod_specs(world).items():
            volumes = {volume["name"] for volume in spec.get("volumes", ())}
            mounted = {
                mount["name"]
                for container in [*spec.get("initContainers", ()), *spec["containers"]]
                for mount in container.get("volumeMounts", ())
            }
            unused = {"hubble-tls", "tmp"} if world.get("remove") else set()
            assert mounted <= volumes <= mounted | unused, pod


def test_nobody_is_privileged_who_is_not_asked_to_be() -> None:
    allowed = {"deflector-agent/mount-bpffs"}
    for world in WORLDS.values():
        for name, container in containers(world).items():
            security = container["securityContext"]
            assert security.get("privileged", False) == (name in allowed), name
            if name not in allowed:
                assert security["capabilities"]["drop"] == ["ALL"], name
                assert not security["allowPrivilegeEscalation"], name
                assert security["readOnlyRootFilesystem"], name


def test_operator_and_relay_are_nobody() -> None:
    specs = pod_specs()
    for pod in ("deflector-operator", "hubble-relay", "deflector-test-relay"):
        assert specs[pod]["securityContext"]["runAsNonRoot"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & specs[pod].keys()
        assert not [volume for volume in specs[pod].get("volumes", ()) if "hostPath" in volume]


def test_only_agent_and_operator_may_speak_with_the_api_server() -> None:
    for pod, spec in pod_specs().items():
        speaks = spec.get("automountServiceAccountToken", True)
        assert speaks == (pod in ("deflector-agent", "deflector-operator")), pod


def test_a_new_version_replaces_neither_envoy_nor_proxies_that_are_held_back(tmp_path: Path) -> None:
    """Law 3: what carries connections is replaced only when it is meant."""
    newer = tmp_path / "deflector"
    _copy(CHART, newer)
    about = newer / "Chart.yaml"
    about.write_text(about.read_text().replace("ersion: 0.1.0", "ersion: 0.2.0"))
    with helm_python.Chart.load(newer) as chart:
        held = {"proxies": {"tag": "0.1.0"}, "agent": {"resources": {}}, "policy": {"enforcement": "always"}}
        after = chart.render(held, name="shield", namespace="deflector-system")
    for name, path in (("deflector-envoy", "envoy"), ("deflector-proxies", "proxies")):
        import yaml

        template = yaml.safe_load(after[f"deflector/templates/{path}/daemonset.yaml"])["spec"]["template"]
        assert template == one("DaemonSet", name)["spec"]["template"]
    assert "deflector:0.2.0" in after["deflector/templates/agent/daemonset.yaml"]


def _copy(source: Path, target: Path) -> None:
    for file in source.rglob("*"):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.read_bytes())

"""Every documented value: it has a schema, renders, and changes something; what is wrong is refused in plain words."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python
import pytest

from tests.charts import kubernetes, values_table
from tests.charts.chart import CHART, ROOT, Values, at, chart, defaults, parsed, render, without_secrets

DOCUMENT = ROOT / "docs/install.md"
TOLERATION = [{"key": "rebel", "operator": "Exists", "effect": "NoSchedule"}]
# Values to try where the schema does not tell any: (value, what it needs to matter).
SAMPLES: Mapping[str, Any] = {
    "clusterName": "hoth",
    "node.runDir": "/var/run/deflector",
    "node.bpffs": "/run/bpf",
    "node.proxyPorts": "20000-20999",
    "hubble.export.otlpEndpoint": "collector.hoth:4317",
    "hubble.tls.issuer": {"name": "echo-base"},
    "image.digest": f"sha256:{'0' * 64}",
    "envoy.image.digest": f"sha256:{'0' * 64}",
    "metrics.serviceMonitor.interval": "5s",
}
NEEDS: Mapping[str, Mapping[str, Any]] = {
    "operator.webhook.failurePolicy": {"operator": {"webhook": {"enabled": True}}},
    "hubble.export.otlpInsecure": {"hubble": {"export": {"otlpEndpoint": "collector:4317"}}},
    "hubble.tls.issuer": {"hubble": {"tls": {"method": "certManager", "issuer": {"name": "nobody"}}}},
    "hubble.tls.days": {"hubble": {"tls": {"method": "certManager", "issuer": {"name": "nobody"}}}},
    "hubble.tls.method": {"hubble": {"tls": {"issuer": {"name": "nobody"}}}},
    **{
        f"metrics.serviceMonitor.{leaf}": {"metrics": {"serviceMonitor": {"enabled": True}}}
        for leaf in ("labels", "interval")
    },
    **{
        f"metrics.dashboards.{leaf}": {"metrics": {"dashboards": {"enabled": True}}}
        for leaf in ("namespace", "label", "labelValue", "annotations")
    },
}


def leaves(values: Values, schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every value that a person may set, with its schema: where the schema has no fixed properties, it ends."""
    for name, value in values.items():
        below = schema["properties"][name]
        here = f"{path}.{name}" if path else name
        if isinstance(value, dict) and below.get("properties") and not here.endswith(("resources", "issuer")):
            yield from leaves(value, below, here)
        else:
            yield here, below


def schema() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return found


def others(path: str, rule: Mapping[str, Any], default: Any) -> list[Any]:
    """Values of that kind that are not the default."""
    if path in SAMPLES:
        return [SAMPLES[path]]
    if "enum" in rule:
        return [value for value in rule["enum"] if value != default]
    kind = rule["type"][0] if isinstance(rule["type"], list) else rule["type"]
    match kind:
        case "boolean":
            return [not default]
        case "integer":
            return [default + 1]
        case "string":
            return ["other"]
        case "array":
            return [_array(path, rule)]
        case "object":
            return [{"requests": {"cpu": "1"}} if path.endswith("resources") else {"word": "other"}]
    raise AssertionError(f"no sample of {path}")


def _array(path: str, rule: Mapping[str, Any]) -> list[Any]:
    if path.endswith("extraArgs"):
        return ["--hubble-redact-enabled"]
    if path.endswith("extraEnv"):
        return [{"name": "DROID", "value": "R2-D2"}]
    if path.endswith("tolerations"):
        return TOLERATION
    return [16443] if rule["items"].get("type") == "integer" else ["other"]


CASES = [
    pytest.param(path, value, id=f"{path}={value!r}"[:60])
    for path, rule in leaves(defaults(), schema())
    for value in others(path, rule, values_table.value_at(defaults(), path))
]


@pytest.mark.parametrize(("path", "value"), CASES)
def test_every_value_renders_and_matters(path: str, value: Any) -> None:
    below = NEEDS.get(path, {})
    before = {name: without_secrets(text) for name, text in render(below).items()}
    after = {name: without_secrets(text) for name, text in render(at(path, value, below)).items()}
    assert before != after, f"{path} changes nothing"
    for name, text in after.items():
        for made in parsed(text) if name != "NOTES.txt" else ():
            kubernetes.validate(made)


def test_the_schema_knows_every_value_and_no_others() -> None:
    def names(rule: Mapping[str, Any], value: Any, path: str = "") -> None:
        if not isinstance(value, dict) or not rule.get("properties") or path.endswith(("resources", "issuer")):
            return
        assert rule["additionalProperties"] is False, path
        assert rule["properties"].keys() - {"global"} == value.keys(), path
        for name, below in value.items():
            names(rule["properties"][name], below, f"{path}.{name}")

    names(schema(), defaults())


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("hubble.tls.method", "vault", "'/hubble/tls/method': value must be one of 'helm', 'certManager', 'provided'"),
        ("policy.enforcment", "always", "'/policy': additional properties 'enforcment' not allowed"),
        ("policy.enforcement", "alway", "'/policy/enforcement': value must be one of 'default', 'always', 'never'"),
        ("clusterName", "Echo Base", "'/clusterName': 'Echo Base' does not match pattern"),
        ("hubble.port", "4244", "'/hubble/port': got string, want integer"),
        ("hubble.bufferCapacity", 4096, "'/hubble/bufferCapacity': value must be one of 1, 3, 7"),
        ("node.proxyPorts", "15000-14000", "node.proxyPorts: 15000-14000 is not FIRST-LAST, e.g. 14000-14999"),
        ("node.runDir", "run", "'/node/runDir': 'run' does not match pattern"),
        ("metrics.port", 14100, "metrics.port: 14100 is one of node.proxyPorts"),
        ("hubble.tls.method", "certManager", "needs hubble.tls.issuer: {group, kind, name} of an Issuer"),
        ("operator.replicas", 0, "'/operator/replicas': minimum: got 0, want 1"),
        ("envoy.maxUnavailable", "0%", "'/envoy/maxUnavailable': '0%' does not match pattern"),
        ("agent.extraArgs", ["hubble"], "'/agent/extraArgs/0': 'hubble' does not match pattern"),
        ("image.digest", "latest", "'/image/digest': 'latest' does not match pattern"),
    ],
)
def test_what_is_wrong_is_named(path: str, value: Any, words: str) -> None:
    with pytest.raises(helm_python.HelmError) as refused:
        chart().render(at(path, value), name="shield", namespace="default")
    assert words in str(refused.value)


def test_the_table_of_values_is_that_of_the_chart(golden: Callable[[Path, str], None]) -> None:
    table = values_table.table(CHART / "values.yaml")
    text, count = re.subn(
        r"(<!-- table: values -->\n).*?(<!-- end -->)", lambda m: m[1] + table + m[2], DOCUMENT.read_text(), flags=re.S
    )
    assert count == 1, f"{DOCUMENT} has no place for the table"
    golden(DOCUMENT, text)


def test_every_value_is_documented() -> None:
    documented = [row.path for row in values_table.rows(CHART / "values.yaml")]
    assert documented == [path for path, _ in leaves(defaults(), schema())]

"""What is served, page by page; read by an independent implementation, and accepted by Envoy itself."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from betterproto2 import Casing
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.extension_pb2 import TypedExtensionConfig
from envoy.config.listener.v3.listener_pb2 import Listener
from google.protobuf import json_format

from policies.ir import NodePolicy
from tests.features.live import ENVOY
from tests.xds.cases import CASES, ports_of
from tests.xds.test_l7 import CASES as L7_CASES
from xds.bootstrap import bootstrap
from xds.resources import CLUSTER, FILTER, LISTENER, Resource
from xds.translator import translate

TESTDATA = Path(__file__).parent / "testdata"
PAGES: dict[str, tuple[str, Any]] = {
    "listeners": (LISTENER, Listener),
    "filters": (FILTER, TypedExtensionConfig),
    "clusters": (CLUSTER, Cluster),
}


def resources_of(policy: NodePolicy, type_url: str) -> list[Resource]:
    table = translate(policy, ports_of(policy))
    assert not table.errors
    return [one for one in table.resources if one.key.type_url == type_url]


def plain(kind: Any, one: Resource) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(
        json_format.MessageToJson(kind.FromString(one.body), preserving_proto_field_name=True)
    )
    return content


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("case", CASES)
def test_what_is_served(case: str, page: str, golden: Callable[[Path, str], None]) -> None:
    type_url, kind = PAGES[page]
    content = [plain(kind, one) for one in resources_of(CASES[case], type_url)]
    golden(TESTDATA / f"{case}.{page}.yaml", yaml.safe_dump(content, sort_keys=True, width=110))


def test_no_golden_is_stale(request: pytest.FixtureRequest) -> None:
    wanted = {TESTDATA / f"{case}.{page}.yaml" for case in CASES for page in PAGES}
    wanted |= {TESTDATA / f"{case}.l7.yaml" for case in L7_CASES}
    stale = set(TESTDATA.iterdir()) - wanted
    if request.config.getoption("--goldens"):
        for path in stale:
            path.unlink()
    else:
        assert not stale


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # envoy-data-plane's, of pydantic
@pytest.mark.parametrize("case", CASES)
def test_another_implementation_reads_the_same_content(case: str) -> None:
    for type_url, kind in PAGES.values():
        for one in resources_of(CASES[case], type_url):
            official = plain(kind, one)
            for name in {type_url.rpartition("/")[2], *_types_within(official)}:
                importlib.import_module("envoy_data_plane." + name.rpartition(".")[0])
            package, _, message = type_url.rpartition("/")[2].rpartition(".")
            reader = getattr(importlib.import_module("envoy_data_plane." + package), message)
            assert reader.parse(one.body).to_dict(casing=Casing.SNAKE) == official


def _types_within(content: dict[str, Any]) -> set[str]:
    return set(re.findall(r'"@type": "type.googleapis.com/([\w.]+)"', json.dumps(content)))


def test_the_same_input_gives_the_same_bytes() -> None:
    for policy in CASES.values():
        assert translate(policy, ports_of(policy)) == translate(policy, ports_of(policy))


def test_envoy_accepts_all_of_it(tmp_path: Path) -> None:
    """In one run of --mode validate: every listener with its filter in place of the subscription to it."""
    config = json.loads(bootstrap("golden", str(tmp_path / "xds.sock"), str(tmp_path / "admin.sock")))
    config["static_resources"]["listeners"] = list(_static_listeners())
    config["static_resources"]["clusters"] += [plain(Cluster, r) for r in resources_of(CASES["rule1-l4"], CLUSTER)]
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(config))
    done = subprocess.run([str(ENVOY), "--mode", "validate", "-c", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    complaints = [line for line in done.stderr.splitlines() if "[warning]" in line or "[error]" in line]
    assert complaints == []


def _static_listeners() -> Iterator[dict[str, Any]]:
    for place, (case, policy) in enumerate(CASES.items()):
        filters = {one.key.name: plain(TypedExtensionConfig, one) for one in resources_of(policy, FILTER)}
        table = translate(policy, ports_of(policy, first=11_000 + 100 * place))
        for one in table.resources:
            if one.key.type_url != LISTENER:
                continue
            listener = plain(Listener, one)
            if one.key.name in filters:  # TLS has none
                manager = listener["filter_chains"][0]["filters"][1]["typed_config"]
                subscription = manager["http_filters"][0]
                del subscription["config_discovery"]
                subscription["typed_config"] = filters[one.key.name]["typed_config"]
            yield {**listener, "name": f"{case} {one.key.name}"}

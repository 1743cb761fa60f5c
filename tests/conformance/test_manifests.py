"""The manifests and the service rules of the galaxy, and the examples made from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import yaml

from conformance import suites
from conformance.blueprint import star_wars
from conformance.manifests import ManifestFolder, policy_file
from conformance.service_proxy import ruleset

TESTDATA = Path(__file__).parent / "testdata"
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_folder_is_the_galaxy_of_the_demo(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    folder.populate(star_wars())
    folder.write(policy_file("rule1"), (EXAMPLES / "rule1-http.yaml").read_text())
    assert folder.digests() == ManifestFolder(EXAMPLES / "starwars").digests()


def test_demo_and_suite_speak_of_the_same_policies() -> None:
    policies = suites.load("starwars").policies
    for name in ("rule1-l4", "rule1-http"):
        (example,) = yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text())
        assert policies[name].manifests == (example,)


def test_replicas_name_their_replica_set_and_ships_own_themselves(tmp_path: Path) -> None:
    ManifestFolder(tmp_path).populate(star_wars())
    pods = {pod["metadata"]["name"]: pod for pod in yaml.safe_load_all((tmp_path / "pods.yaml").read_text())}
    assert len(pods) == 4
    owners = {name: pod["metadata"].get("ownerReferences", [{}])[0].get("name") for name, pod in pods.items()}
    assert owners["xwing"] is None
    replicas = [name for name, owner in owners.items() if owner]
    assert all(name.startswith(f"{owners[name]}-") for name in replicas)
    assert len(replicas) == 2


def test_files_change_whole_and_leave_no_crumbs(tmp_path: Path) -> None:
    folder = ManifestFolder(tmp_path)
    folder.write("policy-a.yaml", "one")
    folder.write("policy-a.yaml", "two")
    folder.write("pods.yaml", "three")
    assert folder.digests()["policy-a.yaml"] == hashlib.sha256(b"two").hexdigest()
    assert folder.policies() == ["policy-a.yaml"]
    folder.remove("policy-a.yaml")
    folder.remove("policy-a.yaml")
    assert [path.name for path in tmp_path.iterdir()] == ["pods.yaml"]


def test_service_rules(golden: Callable[[Path, str], None]) -> None:
    golden(TESTDATA / "services.nft", ruleset(star_wars().services))


def test_a_service_without_backends_is_refused_not_sent_anywhere() -> None:
    rules = ruleset([replace(star_wars().services[0], backends=())])
    assert "dnat" not in rules
    assert rules.count("reject with tcp reset") == 2

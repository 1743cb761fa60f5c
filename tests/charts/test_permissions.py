"""Who may do what: one table (charts/deflector/files/permissions.yaml) makes the roles, and the code is held to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from agent.cluster import resources
from agent.cluster.resources import Resource
from tests.charts.chart import CHART, ROOT, Object, objects, one
from tests.charts.test_rendering import WORLDS

READ = {"get", "list", "watch"}
SECRETS = ("", "secrets")  # only of the namespaces that a person names
TABLE: dict[str, list[Object]] = yaml.safe_load((CHART / "files/permissions.yaml").read_text())
# What is asked for by path, not as a Resource.
BY_PATH: set[tuple[str, str]] = set()


def granted(process: str) -> dict[tuple[str, str], set[str]]:
    """Verbs by (group, plural/subresource), of the rendered roles."""
    found: dict[tuple[str, str], set[str]] = {}
    for made in objects(WORLDS["everything"]):
        if made["kind"] in ("ClusterRole", "Role") and made["metadata"]["name"] == f"deflector-{process}":
            for rule in made["rules"]:
                for group in rule["apiGroups"]:
                    for resource in rule["resources"]:
                        found.setdefault((group, resource), set()).update(rule["verbs"])
    return found


def known() -> dict[str, Resource]:
    return {name: value for name, value in vars(resources).items() if isinstance(value, Resource)}


def used() -> Iterator[str]:
    """Names of resources that code speaks of, wherever it is."""
    for file in (ROOT / "agent").rglob("*.py"):
        if file == Path(resources.__file__):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            if name in known():
                yield name


def test_roles_are_those_of_the_table() -> None:
    for process in ("agent", "operator"):
        wanted: dict[tuple[str, str], set[str]] = {}
        for row in TABLE[process]:
            for group in row["groups"]:
                for resource in row["resources"]:
                    wanted.setdefault((group, resource), set()).update(row["verbs"])
        assert granted(process) == wanted


def test_every_row_says_why_and_nothing_is_a_wildcard() -> None:
    for row in (row for rows in TABLE.values() for row in rows):
        assert row["why"]
        assert "*" not in [*row["groups"], *row["resources"], *row["verbs"]]
        assert set(row) <= {"why", "groups", "resources", "verbs", "names", "namespaced", "when"}


def test_nobody_may_read_secrets_but_where_a_person_says_so() -> None:
    for process in TABLE:
        assert SECRETS not in granted(process)
    made = one("Role", "deflector-agent-secrets", WORLDS["everything"])
    assert made["metadata"]["namespace"] == "echo-base"
    assert [set(rule["verbs"]) for rule in made["rules"]] == [READ]


def test_what_the_code_speaks_of_is_granted_to_somebody() -> None:
    may: set[tuple[str, str]] = {key for process in TABLE for key in granted(process)}
    for name in set(used()):
        resource = known()[name]
        key = (resource.group, resource.plural)
        assert key in may | {SECRETS}, f"code uses {name}, which files/permissions.yaml grants to nobody"


def test_what_is_granted_is_something_that_the_code_knows() -> None:
    names = {(resource.group, resource.plural) for resource in known().values()} | BY_PATH
    for process in TABLE:
        for group, resource in granted(process):
            assert (group, resource.partition("/")[0]) in names, f"{process} may use {resource}.{group}: what for?"


def test_the_agent_may_read_every_kind_that_policies_are_made_of() -> None:
    from policies.reading import readers

    kinds: Any = {(version.rpartition("/")[0], kind) for version, kind in readers._READERS}
    by_kind = {(resource.group, resource.kind): resource for resource in known().values()}
    for key in kinds:
        resource = by_kind[key]
        if (resource.group, resource.plural) != SECRETS:
            assert granted("agent")[resource.group, resource.plural] >= READ, key


def test_only_the_operator_writes_policies_status_and_nobody_writes_policies() -> None:
    for process in TABLE:
        for (group, resource), verbs in granted(process).items():
            if resource.startswith(("ciliumnetworkpolicies", "ciliumclusterwidenetworkpolicies", "networkpolicies")):
                writes = bool(verbs - READ)
                assert writes == (resource.endswith("/status")), (process, group, resource)
                assert not writes or process == "operator"


def test_the_agent_changes_only_by_the_verbs_that_it_uses() -> None:
    writes = {key: verbs - READ for key, verbs in granted("agent").items() if verbs - READ}
    assert writes == {
        ("cilium.io", "ciliumidentities"): {"create"},
        ("cilium.io", "ciliumendpoints"): {"create", "patch", "delete"},
        ("cilium.io", "ciliumendpoints/status"): {"patch"},
        ("deflector.io", "deflectornodes"): {"create", "patch"},
    }

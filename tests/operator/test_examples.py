"""Policies of every kind are taken by the definitions as they are written, field by field, and shown to be valid."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent.cluster.resources import CILIUM_CIDR_GROUPS, CILIUM_CLUSTER_POLICIES, CILIUM_POLICIES, Resource
from tests.cluster.stage import until
from tests.operator.town import Town

EXAMPLES = Path(__file__).parents[2] / "examples"
FILES = sorted([*(EXAMPLES / "policies").glob("*.yaml"), *EXAMPLES.glob("*.yaml")])
KINDS: dict[str, Resource] = {
    made.kind: made for made in (CILIUM_POLICIES, CILIUM_CLUSTER_POLICIES, CILIUM_CIDR_GROUPS)
}
OBJECTS = [
    pytest.param(made, id=f"{path.stem}-{made['metadata']['name']}")
    for path in FILES
    for made in yaml.safe_load_all(path.read_text())
    if made
]


@pytest.mark.parametrize("made", OBJECTS)
async def test_it_is_stored_unchanged_and_valid(town: Town, made: dict[str, Any]) -> None:
    resource, body = KINDS[made["kind"]], copy.deepcopy(made)
    name = body["metadata"]["name"]
    body["metadata"] = {"name": name}
    async with town.operator() as leia:
        await until(lambda: leia.reign and leia.reign.is_complete)
        stored = await town.api.apply(resource, town.namespace, body, manager="kubectl")
        try:
            for part in ("spec", "specs"):
                assert stored.get(part) == made.get(part)
            if resource is not CILIUM_CIDR_GROUPS:
                told = await town.until(name, "Valid", lambda c: True, 2.0, resource)
                assert told["status"] == "True", told["message"]
        finally:
            await town.api.delete(resource, town.namespace, name)


async def test_kubectl_applies_them_and_shows_them(town: Town) -> None:
    if town.cluster.fake is not None:
        pytest.skip("kubectl speaks with real servers")

    async def kubectl(*words: str) -> str:
        argv = ("kubectl", "-n", town.namespace, *words)
        process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
        out = (await process.communicate())[0].decode()
        assert process.returncode == 0, out
        return out

    folder = str(EXAMPLES / "policies")
    async with town.operator() as leia:
        await until(lambda: leia.reign and leia.reign.is_complete)
        try:
            await kubectl("apply", "-f", folder)
            assert "unchanged" in await kubectl("apply", "-f", folder)
            await town.until("get-public", "Valid", lambda c: c["status"] == "True")
            await town.until("get-public", "Enforced", lambda c: bool(c["reason"]))
            shown = await kubectl("get", "cnp")
            assert shown.splitlines()[0].split() == ["NAME", "AGE", "VALID", "ENFORCED"]
            row = next(line.split() for line in shown.splitlines() if line.startswith("get-public"))
            assert row[2] == "True"
        finally:
            await kubectl("delete", "-f", folder)

"""Installs the definitions of the kinds that are used here, where there are none. What others have installed stays as
it is; what we have installed is brought up to date.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError
from agent.cluster.resources import CRDS
from agent.crds import DIGEST, OURS, OWNER, manifests
from agent.errors import EnvironmentProblem
from agent.operator.pen import Pen

ESTABLISHED_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.2

Raw = dict[str, Any]
log = logging.getLogger("deflector.operator")


async def install(pen: Pen) -> None:
    """Create what is absent, and wait until the server serves it. Raises ApiError, Unreachable, EnvironmentProblem."""
    wanted = manifests()
    for manifest in wanted:
        name = manifest["metadata"]["name"]
        found = await _find(pen.server, name)
        if found is None:
            try:
                await pen.create(CRDS, "", manifest)
                log.info("definition %s: installed", name)
            except ApiError as error:
                if not error.is_taken:
                    raise
        elif is_ours(found):
            await _renew(pen, found, manifest)
        elif lack := lacks(found, manifest):
            log.warning("definition %s is somebody else's and stays as it is, but %s", name, lack)
    async with asyncio.timeout(ESTABLISHED_SECONDS):
        for manifest in wanted:
            await _until_established(pen.server, manifest["metadata"]["name"])


def is_ours(found: Mapping[str, Any]) -> bool:
    """Whether we have installed it."""
    return bool((found["metadata"].get("labels") or {}).get(OWNER) == OURS)


def lacks(found: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """What a definition of somebody else's does not have and we need, in words; "" if that is nothing."""
    served = {version["name"]: version for version in found["spec"].get("versions") or () if version.get("served")}
    for wanted in manifest["spec"]["versions"]:
        version = served.get(wanted["name"])
        if version is None and not wanted.get("deprecated"):
            return f"does not serve {wanted['name']}: its objects are not seen"
        if version is not None and "subresources" in wanted and "status" not in (version.get("subresources") or {}):
            return "has no status subresource: conditions are not written"
    return ""


async def _renew(pen: Pen, found: Raw, manifest: Raw) -> None:
    digest = manifest["metadata"]["annotations"][DIGEST]
    if (found["metadata"].get("annotations") or {}).get(DIGEST) == digest:
        return
    metadata = {**manifest["metadata"], "resourceVersion": found["metadata"]["resourceVersion"]}
    try:
        await pen.update(CRDS, "", {**manifest, "metadata": metadata})
        log.info("definition %s: brought up to date", metadata["name"])
    except ApiError as error:
        if not error.is_conflict:
            raise


async def _find(server: ApiServer, name: str) -> Raw | None:
    try:
        return await server.get(CRDS, "", name)
    except ApiError as error:
        if error.is_missing:
            return None
        raise


async def _until_established(server: ApiServer, name: str) -> None:
    while True:
        found = await _find(server, name) or {}
        conditions = {c["type"]: c for c in (found.get("status") or {}).get("conditions") or ()}
        if conditions.get("Established", {}).get("status") == "True":
            return
        names = conditions.get("NamesAccepted", {})
        if names.get("status") == "False":
            raise EnvironmentProblem(f"definition {name} is not accepted: {names.get('message')}: remove the other one")
        await asyncio.sleep(LOOK_SECONDS)

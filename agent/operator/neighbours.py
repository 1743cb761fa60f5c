"""Whether Cilium runs in this cluster: two engines would fight for the same packets and the same objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from agent.cluster.client import ApiServer
from agent.cluster.errors import ApiError
from agent.cluster.resources import CILIUM_NODES, DAEMON_SETS

LABEL: Final = "k8s-app=cilium"  # of Cilium's DaemonSet, whatever it is named and wherever it is
PLACE: Final = ("kube-system", "cilium")  # where its own manifests put it, also without that label
FRESH: Final = timedelta(minutes=10)
ADVICE: Final = (
    "which enforces these policies itself: remove Cilium first, or say --beside-cilium if it does not run any more"
)


async def cilium(server: ApiServer, now: datetime) -> str:
    """The sign of Cilium that was found, in words; "" if there is none. Raises ApiError, Unreachable."""
    for item in await _items(server):
        meta = item["metadata"]
        return f"this cluster runs Cilium (DaemonSet {meta.get('namespace')}/{meta.get('name')}), {ADVICE}"
    try:
        await server.get(DAEMON_SETS, *PLACE)
        return f"this cluster runs Cilium (DaemonSet {'/'.join(PLACE)}), {ADVICE}"
    except ApiError as error:
        if not error.is_missing:
            raise
    try:
        page = json.loads(await server.list_page(CILIUM_NODES, {"limit": "500"}))
    except ApiError as error:
        if error.is_missing:
            return ""
        raise
    for item in page.get("items") or ():
        if now - last_touched(item) < FRESH:
            name = item["metadata"].get("name")
            return f"this cluster runs Cilium (it has just written CiliumNode {name}), {ADVICE}"
    return ""


async def _items(server: ApiServer) -> list[dict[str, Any]]:
    params = {"limit": "1", "labelSelector": LABEL}
    found: list[dict[str, Any]] = json.loads(await server.list_page(DAEMON_SETS, params)).get("items") or []
    return found


def last_touched(item: Mapping[str, Any]) -> datetime:
    """When somebody has written it last."""
    meta = item["metadata"]
    times = [field.get("time") for field in meta.get("managedFields") or ()] + [meta.get("creationTimestamp")]
    found = [datetime.fromisoformat(str(time)) for time in times if time]
    return max(found, default=datetime.min.replace(tzinfo=UTC))

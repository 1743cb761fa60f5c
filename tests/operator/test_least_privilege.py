"""With nothing but the roles of the chart, on a server that holds everybody to theirs: nothing that is needed is
refused."""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from agent.cluster.client import ApiServer
from agent.cluster.credentials import FixedHeader
from agent.cluster.errors import ApiError
from agent.cluster.reporter import Reporter
from agent.cluster.resources import CILIUM_ENDPOINTS, CILIUM_IDENTITIES, Resource
from agent.operator.certificates import OwnCertificate
from agent.operator.collector import GarbageTimes
from agent.operator.injection import Injection
from agent.operator.operator import Operator
from agent.operator.settings import OperatorSettings
from tests.charts.chart import objects
from tests.charts.test_rendering import WORLDS
from tests.cluster.stage import IS_REAL, until
from tests.operator.test_admission import configuration
from tests.operator.town import FAST, Node, Town, eventually, policy

pytestmark = pytest.mark.skipif(not IS_REAL, reason="roles are held to by real servers only")
RBAC = "rbac.authorization.k8s.io"
KINDS = {
    "ServiceAccount": Resource("", "v1", "ServiceAccount", "serviceaccounts"),
    "ClusterRole": Resource(RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False),
    "ClusterRoleBinding": Resource(RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
    "Role": Resource(RBAC, "v1", "Role", "roles"),
    "RoleBinding": Resource(RBAC, "v1", "RoleBinding", "rolebindings"),
}


@asynccontextmanager
async def granted(town: Town, account: str) -> AsyncIterator[ApiServer]:
    """A session as the service account of the chart, with the chart's roles, under names of the test's own."""
    mark, made = uuid.uuid4().hex[:6], []
    text = json.dumps([o for o in objects(WORLDS["everything"]) if o["kind"] in KINDS and _is_about(o, account)])
    text = text.replace(f'"{account}"', f'"{account}-{mark}"').replace('"deflector-system"', f'"{town.namespace}"')
    try:
        for body in json.loads(text):
            resource = KINDS[body["kind"]]
            await town.api.create(resource, town.namespace, body)
            made.append((resource, body["metadata"]["name"]))
        token = Resource("", "v1", "ServiceAccount", "serviceaccounts").path(
            town.namespace, f"{account}-{mark}", "token"
        )
        asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        answer = json.loads(await town.api._ask("POST", token, body=asked))
        access = replace(town.api.access, identity=FixedHeader(f"Bearer {answer['status']['token']}"))
        async with ApiServer(access) as server:
            yield server
    finally:
        for resource, name in made:
            with suppress(ApiError):
                await town.api.delete(resource, town.namespace, name)


def _is_about(made: dict[str, Any], account: str) -> bool:
    return bool(made["metadata"]["name"] == account)


async def test_an_operator_needs_no_more_than_its_roles(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    number = str(310_000 + int(town.namespace[-4:], 16))
    async with granted(town, "deflector-operator") as server, granted(town, "deflector-agent") as agent:
        options = {"install_crds": True, "timing": FAST, "garbage": GarbageTimes(0.2, 0.6, 0.4), "slices": True}
        settings = OperatorSettings(town.namespace, "leia", **options)  # type: ignore[arg-type]
        node, stop = Node(f"{town.prefix}one", Reporter(agent, "0")), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            leia = Operator(server, settings)
            running = [tasks.create_task(leia.run(stop)), tasks.create_task(node.reporter.run())]
            await until(lambda: leia.reign and leia.reign.is_complete, 20)
            async with town.some_nodes("one"):
                node.versions = await town._versions()
                made = await town.apply(policy("rule1"))
                node.realise(made)
                await town.until("rule1", "Enforced", lambda c: c["status"] == "True")
                await town.apply(policy("rule2", "["))
                await eventually(lambda: town.events("rule2"))
                await town.api.create(CILIUM_ENDPOINTS, town.namespace, {"metadata": {"name": "orphan"}})
                await town.api.create(
                    CILIUM_IDENTITIES, "", {"metadata": {"name": number}, "security-labels": {"k8s:a": number}}
                )
                await eventually(lambda: _is_gone(town, CILIUM_ENDPOINTS, "orphan"))
                await eventually(lambda: _is_gone(town, CILIUM_IDENTITIES, number))
            stop.set()
            running[1].cancel()
    assert not [record.message for record in caplog.records if "forbidden" in record.message.lower()]


async def test_a_webhook_may_be_told_of_our_authority_and_no_other_may(town: Town) -> None:
    webhooks = Resource(
        "admissionregistration.k8s.io",
        "v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        namespaced=False,
    )
    certificate = OwnCertificate(("a.b.svc",), "leia", lambda: datetime.now(UTC))
    async with granted(town, "deflector-operator") as server:
        for name, is_ours in (("deflector-policies", True), ("somebody-elses", False)):
            body = configuration(name, 1)
            body["webhooks"][0]["namespaceSelector"] = {"matchLabels": {"no": "where"}}
            await town.api.create(webhooks, "", body)
            try:
                injection = Injection(server, name, certificate, asyncio.Event())
                if is_ours:
                    assert await injection.inject()
                else:
                    with pytest.raises(ApiError, match="forbidden"):
                        await injection.inject()
            finally:
                await town.api.delete(webhooks, "", name)


async def _is_gone(town: Town, resource: Resource, name: str) -> bool:
    try:
        await town.api.get(resource, town.namespace, name)
    except ApiError as error:
        return error.is_missing
    return False

"""What the webhook answers, in words and over TLS; its certificates, and who is told to trust them."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from agent.cluster.errors import ApiError
from agent.cluster.resources import CILIUM_POLICIES, WEBHOOKS
from agent.errors import EnvironmentProblem
from agent.operator import webhook as webhooks
from agent.operator.admission import NoReview, answer
from agent.operator.certificates import FileCertificate, Issued, OwnCertificate, bundle, issue
from agent.operator.injection import Injection
from agent.operator.settings import WebhookSettings
from agent.operator.webhook import Certificate, Webhook
from flows.rpc.tls import TlsFiles
from tests.operator.town import Town, eventually, free_port, policy

NAME = "deflector-webhook.hoth.svc"
NOW = datetime.now(UTC)


def review(obj: Any, operation: str = "CREATE", **more: Any) -> dict[str, Any]:
    request = {"uid": "42", "operation": operation, "namespace": "default", "object": obj, **more}
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def cnp(path: str = "/a", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", **policy("rule1", path, **spec)}


def test_a_good_policy_is_allowed_and_a_bad_one_refused_with_its_field() -> None:
    assert answer(review(cnp()))["response"] == {"uid": "42", "allowed": True}
    refused = answer(review(cnp("[")))["response"]
    assert not refused["allowed"]
    assert refused["status"]["code"] == 422
    assert refused["status"]["message"].startswith("spec.ingress[0].toPorts[0].rules.http[0].path: bad regular")


def test_warnings_are_warnings() -> None:
    told = answer(review(cnp(ingress=[{"toPorts": [{"ports": [{"port": "80"}]}]}])))["response"]
    assert told["allowed"]
    [warning] = told["warnings"]
    assert warning.startswith("spec.ingress[0]: selects everything (SelectsEverything): no peers are named")


def test_removals_states_and_other_kinds_pass() -> None:
    bad = cnp("[")
    for passed in (
        review(None, "DELETE", oldObject=bad),
        review(bad, "UPDATE", subResource="status"),
        review({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}),
        review({**bad, "metadata": {"name": "rule1", "finalizers": []}}, "UPDATE", oldObject=bad),
    ):
        assert answer(passed)["response"]["allowed"]
    assert not answer(review(bad, "UPDATE", oldObject=cnp()))["response"]["allowed"]


def test_a_name_that_is_yet_to_be_made_is_no_fault() -> None:
    generated = cnp()
    generated["metadata"] = {"generateName": "rule-"}
    assert answer(review(generated))["response"]["allowed"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["spec", "kind", "ingress", "x"]), inner)
    ),
    max_leaves=10,
)


@given(JSON)
def test_whatever_is_sent_is_answered_or_no_review(sent: Any) -> None:
    with pytest.raises(NoReview):
        answer(sent)
    assert isinstance(answer(review(sent))["response"]["allowed"], bool)
    assert isinstance(answer(review({**cnp(), "spec": sent}))["response"]["allowed"], bool)


# Certificates


def trusting(authority: bytes) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=authority.decode())
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


@asynccontextmanager
async def serving(certificate: Certificate) -> AsyncIterator[Webhook]:
    made = Webhook(free_port(), certificate)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def ask(made: Webhook, context: ssl.SSLContext, body: Any, name: str = NAME) -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            f"https://127.0.0.1:{made.port}/validate", data=data, ssl=context, server_hostname=name
        ) as response,
    ):
        text = await response.text()
        return response.status, json.loads(text) if response.status == 200 else text


def own(now: list[datetime] | None = None) -> OwnCertificate:
    clock = now or [NOW]
    return OwnCertificate((NAME,), "leia", lambda: clock[0])


async def test_reviews_are_answered_over_tls_to_whoever_trusts_us() -> None:
    certificate = own()
    async with serving(certificate) as made:
        code, told = await ask(made, trusting(certificate.authority), review(cnp("[")))
        assert (code, told["response"]["allowed"]) == (200, False)
        assert made.answered == {"refused": 1}
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(made, trusting(own().authority), review(cnp()))
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await ask(made, trusting(certificate.authority), review(cnp()), "elsewhere.svc")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_is_of_this_decade(version: ssl.TLSVersion) -> None:
    certificate = own()
    context = trusting(certificate.authority)
    context.minimum_version = context.maximum_version = version
    async with serving(certificate) as made:
        assert (await ask(made, context, review(cnp())))[0] == 200
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="deprecated"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(aiohttp.ClientError):
            await ask(made, old, review(cnp()))


async def test_what_is_no_review_too_large_or_too_much_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = own()
    context = trusting(certificate.authority)
    async with serving(certificate) as made:
        assert (await ask(made, context, b"{"))[0] == 400
        assert (await ask(made, context, {"kind": "Pod"}))[0] == 400
        assert (await ask(made, context, b" " * (webhooks.REQUEST_MAX + 1)))[0] == 413
        monkeypatch.setattr(webhooks, "AT_ONCE", 0)
        assert (await ask(made, context, review(cnp())))[0] == 429
        assert made.answered["busy"] == 1


async def test_our_own_certificate_is_made_anew_in_time_while_serving() -> None:
    clock = [NOW]
    certificate = own(clock)
    before = certificate.authority
    async with serving(certificate) as made:
        assert not certificate.renew()
        clock[0] = NOW + timedelta(days=21)
        assert certificate.renew()
        assert certificate.authority != before
        context = ssl.create_default_context(cadata=certificate.authority.decode())
        context.verify_flags |= 0x200000  # X509_V_FLAG_NO_CHECK_TIME: it is of a time to come
        assert (await ask(made, context, review(cnp())))[0] == 200


def written(folder: Path, issued: Issued) -> TlsFiles:
    (folder / "tls.crt").write_bytes(issued.certificate)
    (folder / "tls.key").write_bytes(issued.key)
    return TlsFiles(folder / "tls.crt", folder / "tls.key")


async def test_files_are_read_again_when_they_change_and_bad_ones_are_not_used(tmp_path: Path) -> None:
    first, second, told = issue((NAME,), "a", NOW), issue((NAME,), "b", NOW), []
    certificate = FileCertificate(written(tmp_path, first), told.append)
    async with serving(certificate) as made:
        assert (await ask(made, trusting(first.authority), review(cnp())))[0] == 200
        written(tmp_path, second)
        assert certificate.renew()
        assert (await ask(made, trusting(second.authority), review(cnp())))[0] == 200
        (tmp_path / "tls.key").write_bytes(first.key)  # of another certificate
        assert not certificate.renew()
        assert "stays in use" in told[0]
        assert (await ask(made, trusting(second.authority), review(cnp())))[0] == 200
    with pytest.raises(EnvironmentProblem, match=r"tls\.key"):
        FileCertificate(TlsFiles(tmp_path / "tls.crt", tmp_path / "tls.key"), told.append)


def test_a_bundle_has_our_authority_and_those_of_others_that_are_good() -> None:
    ours, other = issue((NAME,), "leia", NOW), issue((NAME,), "han", NOW)
    old = issue((NAME,), "obi-wan", NOW - timedelta(days=31))
    both = bundle(other.authority + old.authority, ours.authority, NOW, 8)
    assert len(x509.load_pem_x509_certificates(both)) == 2
    assert bundle(both, ours.authority, NOW, 8) == both == bundle(both, other.authority, NOW, 8)
    assert bundle(b"nonsense", ours.authority, NOW, 8) == ours.authority
    many = b"".join(issue((NAME,), str(n), NOW).authority for n in range(9))
    assert len(x509.load_pem_x509_certificates(bundle(many, ours.authority, NOW, 4))) == 4


def configuration(name: str, port: int = 443) -> dict[str, Any]:
    rule = {
        "apiGroups": ["cilium.io"],
        "apiVersions": ["v2"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["ciliumnetworkpolicies"],
    }
    hook = {
        "name": "policies.deflector.io",
        "clientConfig": {"url": f"https://localhost:{port}/validate"},
        "rules": [rule],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "failurePolicy": "Ignore",
        "timeoutSeconds": 5,
    }
    return {"metadata": {"name": name}, "webhooks": [hook]}


async def test_every_operator_puts_its_authority_into_the_configuration(town: Town) -> None:
    name = f"deflector-{town.namespace}"
    await town.api.create(WEBHOOKS, "", configuration(name, 1))
    try:
        leia, han = own(), OwnCertificate((NAME,), "han", lambda: NOW)
        for certificate in (leia, han):
            injection = Injection(town.api, name, certificate, asyncio.Event())
            assert await injection.inject()
            assert not await injection.inject()
        assert not await Injection(town.api, name, leia, asyncio.Event()).inject()
        found = await town.api.get(WEBHOOKS, "", name)
        has = base64.b64decode(found["webhooks"][0]["clientConfig"]["caBundle"])
        assert leia.authority in has
        assert han.authority in has
    finally:
        await town.api.delete(WEBHOOKS, "", name)


async def test_a_real_api_server_asks_us_and_prints_what_we_say(town: Town, tmp_path: Path) -> None:
    if town.cluster.fake is not None:
        pytest.skip("only real servers ask webhooks")
    name = f"deflector-{town.namespace}"
    files = written(tmp_path, issued := issue(("localhost",), "leia", NOW))
    settings = WebhookSettings(free_port(), configuration=name, certificate=files.certificate, key=files.key)
    async with town.operator(webhook=settings) as leia:
        assert leia.webhook is not None
        body = configuration(name, settings.port)
        body["webhooks"][0]["clientConfig"]["caBundle"] = base64.b64encode(issued.authority).decode()
        body["webhooks"][0]["namespaceSelector"] = {"matchLabels": {"kubernetes.io/metadata.name": town.namespace}}
        await town.api.create(WEBHOOKS, "", body)
        try:
            await eventually(lambda: _refused(town), 15)
            with pytest.raises(
                ApiError, match=r"spec\.ingress\[0\]\.toPorts\[0\]\.rules\.http\[0\]\.path: bad regular"
            ):
                await town.apply(policy("rule1", "["))
            await town.apply(policy("rule1"))
            assert leia.webhook.answered["allowed"] >= 1
        finally:
            await town.api.delete(WEBHOOKS, "", name)


async def _refused(town: Town) -> bool:
    """Whether the webhook is asked by now."""
    try:
        await town.api.create(CILIUM_POLICIES, town.namespace, policy("probe", "["))
    except ApiError as error:
        return "bad regular expression" in str(error)
    await town.api.delete(CILIUM_POLICIES, town.namespace, "probe")
    return False

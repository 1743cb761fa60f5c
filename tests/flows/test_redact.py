"""What flows do not tell: queries, passwords, tokens; and what they tell nevertheless when asked to."""

from __future__ import annotations

from typing import Any

import pytest
from flow import flow_pb2
from hypothesis import given
from hypothesis import strategies as st

from flows.intake import Intake
from flows.redact import REDACTED, Redaction, Redactor, header_names
from flows.ring import Ring
from tests.flows.make import Clock, Galaxy, denied, exchange, flows_in, message, uuids

SECRET = "S3cr3t"


def told(redaction: Redaction | None, *entries: Any) -> list[flow_pb2.Flow]:
    numbers = uuids()
    made = Intake(
        Ring(63),
        Galaxy,
        version="0.1.0",
        now_ns=Clock(),
        new_uuid=lambda: next(numbers),
        redaction=redaction,
    )
    made.reading = True
    made.access_log(message(*entries))
    assert made.malformed == 0
    return flows_in(made.ring)


ASKED = {
    "authorization": f"Bearer {SECRET}",
    "cookie": f"session={SECRET}",
    "proxy-authorization": SECRET,
    "x-api-key": SECRET,
    "x-amz-security-token": SECRET,
    "referer": f"https://{SECRET}@galaxy.example/path?token={SECRET}#{SECRET}",
    "x-has-exhaust": "yes",
}
ANSWERED = {"set-cookie": f"id={SECRET}", "location": f"/next?code={SECRET}", "content-type": "text/plain"}


def test_by_default_no_flow_holds_a_credential() -> None:
    """Neither in its URL, headers, summary nor policy log; of an exchange and of a denial."""
    request = f"GET /v1/status?password={SECRET}#{SECRET}"
    wanting = entry_with_faults(request)
    flows = told(None, *exchange(request=request, headers=ASKED, answered=ANSWERED), denied(request=request), wanting)
    assert len(flows) == 6
    for flow in flows:
        assert SECRET.encode() not in flow.SerializeToString()
        assert flow.l7.http.url == "http://deathstar/v1/status"
    headers = {header.key: header.value for header in flows[0].l7.http.headers}
    assert headers == {
        "Authorization": REDACTED,
        "Cookie": REDACTED,
        "Proxy-Authorization": REDACTED,
        "Referer": f"https://{REDACTED}@galaxy.example/path",
        "X-Amz-Security-Token": REDACTED,
        "X-Api-Key": REDACTED,
        "X-Has-Exhaust": "yes",
    }
    assert flows[0].Summary == "HTTP/1.1 GET http://deathstar/v1/status"
    answered = {header.key: header.value for header in flows[1].l7.http.headers}
    assert answered == {"Content-Type": "text/plain", "Location": "/next", "Set-Cookie": REDACTED}
    assert list(flows[4].policy_log)[-2:] == [
        f"missing header X-Api-Key: {REDACTED}",
        "rejected header X-Has-Exhaust: maybe",
    ]


def entry_with_faults(request: str) -> Any:
    made = exchange(request=request, port=40001)[1]
    metadata = made.common_properties.metadata.filter_metadata
    metadata["deflector.headers.missing"]["x-api-key"] = SECRET
    metadata["deflector.headers.rejected"]["x-has-exhaust"] = "maybe"
    return made


def shown(redaction: Redaction, **headers: str) -> dict[str, str]:
    return dict(Redactor(redaction).headers(tuple(sorted((name.replace("_", "-"), v) for name, v in headers.items()))))


@pytest.mark.parametrize(
    ("redaction", "visible"),
    [
        (Redaction(), {"X-Color", "Etag"}),
        (Redaction(deny=frozenset(("etag",))), {"X-Color"}),
        (Redaction(allow=frozenset(("cookie",))), {"X-Color", "Etag", "Cookie"}),
        (Redaction(everything=True), set()),
        (Redaction(everything=True, allow=frozenset(("etag", "cookie"))), {"Etag", "Cookie"}),
        (Redaction(everything=True, deny=frozenset(("etag",))), {"X-Color"}),
        (Redaction(everything=True, allow=frozenset(("x-color",)), deny=frozenset(("etag",))), {"X-Color"}),
    ],
)
def test_which_headers_are_shown(redaction: Redaction, visible: set[str]) -> None:
    """Names are compared in lower case; what carries credentials is shown only if it is allowed by name."""
    found = shown(redaction, X_Color="a", Etag="b", Cookie="c")
    assert {name for name, value in found.items() if value != REDACTED} == visible


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://h/a", "http://h/a"),
        ("http://h/a?b=c", "http://h/a"),
        ("http://h/a#b?c", "http://h/a"),
        ("http://user:pw@h/a@b?c", f"http://user:{REDACTED}@h/a@b"),
        ("http://token@h", f"http://{REDACTED}@h"),
        ("http://a:b@c@h/", f"http://a:{REDACTED}@h/"),
        ("http://h/~user@host/", "http://h/~user@host/"),
        ("/path?a@b", "/path"),
        ("", ""),
    ],
)
def test_urls(url: str, expected: str) -> None:
    assert Redactor(Redaction()).url(url) == expected


def test_what_is_switched_off_is_shown() -> None:
    plain = Redaction(url_query=False, user_info=False, allow=header_names(["Authorization,  X-API-Key", "cookie"]))
    (flow,) = told(plain, denied(request="GET /a?b=c", headers=ASKED))[:1]
    assert flow.l7.http.url == "http://deathstar/a?b=c"
    values = {header.key: header.value for header in flow.l7.http.headers}
    assert (values["Authorization"], values["X-Api-Key"]) == (f"Bearer {SECRET}", SECRET)


@given(st.text(max_size=30), st.text(max_size=10))
def test_no_query_is_left(start: str, query: str) -> None:
    assert not set(Redactor(Redaction()).url(f"http://h/{start}?{query}")) & {"?", "#"}

"""The bypass corpus is read as it is written, and judged by every way of reading a request."""

from __future__ import annotations

from collections import Counter

import pytest

from conformance.bypass import Allowed, CorpusError, Received, Trick, Wire, corpus, read, readings, trespass

ALLOWED = (
    Allowed("GET", "/public(/.*)?", r"public\.example(:[0-9]+)?"),
    Allowed("GET", "/vault", r"public\.example", ("X-Token", "sesame")),
)
HOST = ("Host", "public.example")


def test_the_corpus_has_tricks_of_every_kind_and_no_line_twice() -> None:
    made = corpus()
    assert len(made.tricks) >= 150
    assert {trick.wire for trick in made.tricks} == set(Wire)
    assert [line for line, times in Counter((t.wire, t.sent) for t in made.tricks).items() if times > 1] == []
    assert {(rule.method, rule.header) for rule in made.allowed} >= {("GET", None), ("GET", ("X-Token", "sesame"))}


def test_a_line_says_what_is_sent() -> None:
    made = read(
        "[policy]\nGET | / | h | -\n# a comment\n\n[some tricks]\n"
        "target | 403 | /\\x7c%20 | a bar\n"
        "http1 | 200 403 | GET / HTTP/1.1\\r\\n{host}\\r\\n\\r\\n\\\\ | bytes\n"
        "http2 | closed | :method=G\\x20 :path= x=a=b | fields\n"
    )
    assert made.allowed == (Allowed("GET", "/", "h"),)
    target, raw, fields = made.tricks
    assert target == Trick(6, "some tricks", Wire.TARGET, ("403",), "/|%20", "a bar")
    assert target.raw() == b"GET /|%20 HTTP/1.1\r\nHost: public.example\r\n\r\n"
    assert (raw.answers, raw.raw()) == (("200", "403"), b"GET / HTTP/1.1\r\nHost: public.example\r\n\r\n\\")
    assert fields.fields() == ((b":method", b"G "), (b":path", b""), (b"x", b"a=b"))


@pytest.mark.parametrize("line", ["target | 403 | /", "smoke | 403 | / | why", "target |  | / | why", "x"])
def test_a_line_that_cannot_be_read_is_named(line: str) -> None:
    with pytest.raises(CorpusError, match=r"^line 2: "):
        read(f"[tricks]\n{line}\n")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/public/%2e%2e/admin", "/admin"),
        ("/public/%252e%252e/admin", "/admin"),
        ("/public/..;/admin", "/admin"),
        ("/public\\..\\admin", "/admin"),
        ("//admin", "/admin"),
        ("/%61dmin", "/admin"),
        ("/admin%00.html", "/admin"),
        ("/public/%c0%ae%c0%ae/admin", "/admin"),
        ("/public/%u002e%u002e/admin", "/admin"),
        ("/public/.../admin", "/admin"),
        ("/admin.%20", "/admin"),
        ("http://h/admin?x", "/admin"),
    ],
)
def test_some_server_reads_it_so(target: str, path: str) -> None:
    assert path in readings(target)


@pytest.mark.parametrize(
    "received",
    [
        Received("GET", "/public", (HOST,)),
        Received("GET", "/public/a%20b;c/d%252F?x=/../admin", (HOST,)),
        Received("GET", "/vault", (HOST, ("x-token", "sesame"))),
    ],
)
def test_what_every_server_reads_as_allowed_is_no_trespass(received: Received) -> None:
    assert trespass(ALLOWED, received) == ""


@pytest.mark.parametrize(
    "received",
    [
        Received("GET", "/public/..%2fadmin", (HOST,)),
        Received("POST", "/public", (HOST,)),
        Received("GET", "/public"),
        Received("GET", "/public", (("Host", "admin.example"),)),
        Received("GET", "/public", (HOST, ("Host", "admin.example"))),
        Received("GET", "/public", (("Host", "public.example,admin.example"),)),
        Received("GET", "/public", (("Host", "public.example:80@admin.example"),)),
        Received("GET", "http://admin.example/public", (HOST,)),
        Received("GET", "/vault", (HOST,)),
        Received("GET", "/vault", (HOST, ("X-Token", "sesame"), ("X_Token", "x"))),
    ],
)
def test_what_some_server_reads_otherwise_is_a_trespass(received: Received) -> None:
    assert trespass(ALLOWED, received) != ""

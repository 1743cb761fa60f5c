"""What a deathstar says to an HTTP request. Pure.

Every answer tells what arrived: `x-received` is method and target as they came, `x-client` the address of the peer, so
that a probe can prove that what was judged is what was forwarded.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

REASONS = {200: b"OK", 404: b"Not Found", 405: b"Method Not Allowed", 503: b"Service Unavailable"}

TALLIED = "/v1/tally/"  # targets below are counted, and answered with 503

EXPLOSION = """Panic: deathstar exploded

goroutine 1 [running]:
main.swallowTorpedo(0xc0000b4000, 0x2)
        /empire/deathstar/exhaust_port.go:2 +0x1f
main.main()
        /empire/deathstar/main.go:77 +0x42
"""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived; header names keep their case on HTTP/1.1."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    client: str
    version: str
    body_length: int = 0

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def receipt(self) -> list[tuple[str, str]]:
        """Headers that tell what arrived."""
        return [("x-received", f"{self.method} {self.target}"), ("x-client", self.client)]


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    content_type: str = "text/plain"
    allow: str = ""

    def headers(self, request: Request) -> list[tuple[str, str]]:
        """Header lines in lower case, as both versions may have them."""
        lines = [
            ("content-type", self.content_type),
            ("content-length", str(len(self.body))),
            *request.receipt(),
        ]
        return [*lines, ("allow", self.allow)] if self.allow else lines


ROUTES: dict[str, dict[str, Response]] = {
    "/v1/request-landing": {"POST": Response(200, b"Ship landed\n")},
    "/v1/exhaust-port": {"PUT": Response(503, EXPLOSION.encode())},
}


def answer(pod: str, request: Request, times: int = 1) -> Response:
    """What the deathstar says to a target that it is asked for so many times.

    GET and HEAD of /v1/ tell who it is; below /v1/echo any method tells what arrived, below /v1/tally how often.
    """
    if request.path.startswith(TALLIED):
        return Response(503, f"times: {times}\n".encode())
    if request.path.startswith("/v1/echo"):
        return _as_json({"pod": pod, **asdict(request)})
    methods = dict(ROUTES.get(request.path, {}))
    if request.path == "/v1/":
        about = _as_json({"name": "Death Star", "pod": pod, "status": "operational"})
        methods = {"GET": about, "HEAD": about}
    if not methods:
        return Response(404, b"These are not the droids you are looking for\n")
    return methods.get(request.method) or Response(405, b"Not allowed here\n", allow=", ".join(sorted(methods)))


GRPC_METHODS = ("/empire.DeathStar/RequestLanding", "/empire.DeathStar/ExhaustPort")
GRPC_OK, GRPC_UNIMPLEMENTED = 0, 12


def grpc_status(request: Request) -> int:
    """The status of a gRPC call: the deathstar has two methods."""
    return GRPC_OK if request.target in GRPC_METHODS else GRPC_UNIMPLEMENTED


def _as_json(value: dict[str, object]) -> Response:
    return Response(200, json.dumps(value).encode() + b"\n", "application/json")

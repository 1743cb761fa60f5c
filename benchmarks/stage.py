"""What benchmarks share, made when it is first asked for: two galaxies that are twins, one of them with Deflector.

Both have a client pod, a server pod and a node in between; in the plain one nothing else. So direct and bare legs know
nothing of Deflector's programs, routes and rules, and all legs differ in nothing but what they are to show.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property

from benchmarks.child import Child, running
from benchmarks.connection import Connection
from benchmarks.envoys import envoy, forward_bootstrap, log_socket, server_bootstrap
from benchmarks.errors import NotMeasured
from benchmarks.figures import RULE_COUNTS, RULE_FORMS
from benchmarks.node import Node, deflector
from benchmarks.policy import http_policy, plain_policy
from conformance.blueprint import Blueprint, star_wars
from conformance.galaxy import NODE, Galaxy, galaxy
from conformance.manifests import policy_file

PREFIX = "bench"  # of galaxies: what a killed bench left behind is swept by the next
CLIENT, SERVER = "tiefighter", "deathstar-1"
HTTP_PORT, PLAIN_PORT, EDITED_PORT, SEEN_PORT, SLOW_PORT, RESTART_PORT = 80, 8080, 8081, 8082, 8083, 8084
FORWARD_PORTS = {"file": 15000, "grpc": 15001}  # kind of access log -> port of the bare forward proxy
RULE_PORTS = {
    (form, count): 9000 + number
    for number, (form, count) in enumerate((form, count) for form in RULE_FORMS for count in RULE_COUNTS)
}
SLOWNESS = 0.5  # seconds that the server takes on SLOW_PORT
PROMPT_PORTS = (HTTP_PORT, PLAIN_PORT, EDITED_PORT, SEEN_PORT, RESTART_PORT, *RULE_PORTS.values())
SERVER_PORTS = {**dict.fromkeys(PROMPT_PORTS, 0.0), SLOW_PORT: SLOWNESS}
PATH = "/v1/request-landing"  # what the ordinary policy allows on HTTP_PORT; on PLAIN_PORT it allows everything
PAUSE = 0.02  # seconds between two looks whether a policy is in force


def twin_blueprint() -> Blueprint:
    """A tiefighter and one deathstar behind its service; servers are started by the bench."""
    whole = star_wars()
    pods = tuple(replace(whole.pod(alias), serves=()) for alias in (SERVER, CLIENT))
    services = tuple(replace(service, backends=pods[:1]) for service in whole.services)
    return replace(whole, name="bench", pods=pods, services=services)


class Stage:
    """Everything lives until the bench's ExitStack unwinds. `note` takes a line of progress."""

    def __init__(self, stack: ExitStack, note: Callable[[str], None]) -> None:
        self._stack = stack
        self.note = note

    @cached_property
    def plain(self) -> Galaxy:
        """The twin without Deflector, with a server and a bare forward proxy."""
        return self._galaxy("plain")

    @cached_property
    def forward_proxy(self) -> Child:
        """The bare Envoy on the plain twin's node."""
        self.note("starting the bare forward proxy")
        made = self.plain
        sink = [sys.executable, "-m", "benchmarks.log_sink", str(log_socket(made.folder))]
        self._stack.enter_context(running("log sink", made.namespace(NODE), sink, made.folder / "sink.log"))
        bootstrap = forward_bootstrap(FORWARD_PORTS, (made.address(SERVER, 4), HTTP_PORT), made.folder)
        return self._stack.enter_context(envoy("forward", made.namespace(NODE), bootstrap, made.folder))

    @cached_property
    def deflected(self) -> Galaxy:
        """The twin with Deflector."""
        return self._galaxy("deflected")

    @cached_property
    def node(self) -> Node:
        """Deflector on the deflected twin, ready, with the policy of the ordinary legs in force."""
        made = self.deflected
        made.manifests.write(policy_file("ordinary"), http_policy("ordinary", HTTP_PORT, [PATH]))
        made.manifests.write(policy_file("plain"), plain_policy("plain", PLAIN_PORT))
        self.note("starting Deflector")
        return self._stack.enter_context(deflector(made))

    def connect(self, port: int) -> Connection:
        """A keep-alive connection from the client pod to the server pod of the deflected twin; close it."""
        made = self.deflected
        return Connection(made.namespace(CLIENT), made.address(SERVER, 4), port)

    def await_allowed(self, port: int, path: str, timeout: float) -> None:
        """Wait until a request on a new connection gets 200. Raises NotMeasured after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        complaint = ""
        while time.monotonic() < deadline:
            try:
                with self.connect(port) as connection:
                    status = connection.get(path).status
            except NotMeasured as error:
                complaint = str(error)
            else:
                if status == 200:
                    return
                complaint = f"it gets {status}"
            time.sleep(PAUSE)
        raise NotMeasured(f"GET {path} on port {port} is not allowed after {timeout:.0f} s: {complaint}")

    def _galaxy(self, name: str) -> Galaxy:
        self.note(f"making the {name} galaxy")
        made = self._stack.enter_context(galaxy(twin_blueprint(), prefix=PREFIX))
        self._stack.enter_context(envoy("server", made.namespace(SERVER), server_bootstrap(SERVER_PORTS), made.folder))
        return made

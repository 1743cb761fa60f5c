"""What a node says about itself: one JSON document, served over gRPC on agent.sock, and its form for people.

The service is `deflector.Agent/Status`, nothing -> the JSON text, so that it needs no schema of its own. Asking is what
scripts do in a loop: neither protobuf nor rich is imported for it. `Policy` takes NAMESPACE/POD and gives what is in
force there (agent.documents.policy_document), `Usage` says which rules are used (agent.usage.document), `Names` what
was learned of names (agent.names.document).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from agent.errors import EnvironmentProblem

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SERVICE = "deflector.Agent"
METHOD = f"/{SERVICE}/Status"
POLICY_METHOD = f"/{SERVICE}/Policy"
USAGE_METHOD = f"/{SERVICE}/Usage"
NAMES_METHOD = f"/{SERVICE}/Names"
TIMEOUT = 5.0  # seconds that a client waits for the answer
ANSWER_MAX = 64 << 20  # bytes: a hundred thousand rules


def agent_handler(
    document: Callable[[], Mapping[str, Any]],
    policy: Callable[[str, str], Mapping[str, Any] | None],
    usage: Callable[[], Awaitable[Mapping[str, Any]]],
    names: Callable[[], Awaitable[Mapping[str, Any]]],
) -> grpc.GenericRpcHandler:
    """The gRPC handler that answers with the documents of the moment; `policy` has one for each pod of this node,
    `usage` is about its rules, `names` about what its pods have learned of names."""

    async def status(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return json.dumps(document()).encode()

    async def policy_of(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        pod = request.decode(errors="replace")
        namespace, _, name = pod.partition("/")
        found = policy(namespace, name)
        if found is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"pod {pod} is not on this node")
        return json.dumps(found).encode()

    async def usage_of(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return json.dumps(await usage()).encode()

    async def names_of(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return json.dumps(await names()).encode()

    unary = grpc.unary_unary_rpc_method_handler  # bytes in, bytes out
    answers = {"Status": unary(status), "Policy": unary(policy_of), "Usage": unary(usage_of), "Names": unary(names_of)}
    return grpc.method_handlers_generic_handler(SERVICE, answers)


def fetch_status(socket: Path) -> dict[str, Any]:
    """Ask the agent behind this socket. Raises EnvironmentProblem if none answers."""
    return _ask(socket, METHOD, b"")


def fetch_policy(socket: Path, namespace: str, name: str) -> dict[str, Any]:
    """What the agent behind this socket enforces on a pod. Raises EnvironmentProblem if it knows none, or is away."""
    return _ask(socket, POLICY_METHOD, f"{namespace}/{name}".encode())


def fetch_usage(socket: Path) -> dict[str, Any]:
    """How often the rules of the agent behind this socket were used. Raises EnvironmentProblem if none answers."""
    return _ask(socket, USAGE_METHOD, b"")


def fetch_names(socket: Path) -> dict[str, Any]:
    """The names that pods of the agent behind this socket have learned. Raises EnvironmentProblem if none answers."""
    return _ask(socket, NAMES_METHOD, b"")


def _ask(socket: Path, method: str, request: bytes) -> dict[str, Any]:
    if not socket.exists():
        raise EnvironmentProblem(f"no agent at {socket}: start one with 'deflector run', or give its --run-dir")
    with grpc.insecure_channel(f"unix://{socket}", (("grpc.max_receive_message_length", ANSWER_MAX),)) as channel:
        try:
            answer = channel.unary_unary(method)(request, timeout=TIMEOUT)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise EnvironmentProblem(error.details()) from None
            raise EnvironmentProblem(
                f"the agent at {socket} does not answer ({error.code().name}): is it alive?"
            ) from None
    document: dict[str, Any] = json.loads(answer)
    return document


def status_console() -> Console:
    """Standard output; where that is no terminal, wide enough for every row to stay one line."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    return console if console.is_terminal else Console(highlight=False, soft_wrap=True, width=240)


def print_status(document: Mapping[str, Any], console: Console) -> None:
    """The document for people: health first, then endpoints, slots and problems."""
    from rich.text import Text

    for name, good, words in _headlines(document):
        console.print(Text.assemble((f"{name + ':':<13}", "bold"), ("OK  " if good else "!!  ", _colour(good)), words))
    if document["endpoints"]:
        console.print(_endpoint_table(document["endpoints"]))
    if document["slots"]:
        console.print(_slot_table(document["slots"]))
    for problem in document["problems"]:
        console.print(Text.assemble(("problem: ", "bold red"), problem))


def _headlines(document: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    envoy, kernel, hubble = document["envoy"], document["kernel"], document["hubble"]
    waiting = "; an accepted change is not enforced yet" if document["pending"] else ""
    lost = f", {kernel['events_lost']} events lost" if kernel["events_lost"] else ""
    return [
        ("Node", document["ready"], f"{document['node']}, deflector {document['version']}"),
        ("Policy", not document["problems"], f"revision {document['revision']}{waiting}, from {document['manifests']}"),
        ("Kernel", kernel["loaded"], f"{len(document['endpoints'])} endpoints attached{lost}"),
        ("Envoy", envoy["connected"], f"process {envoy['pid'] or '-'}, {envoy['restarts']} restarts"),
        *_own_proxies(document["proxies"]),
        *_names(document["names"]),
        ("Hubble", True, f"{hubble['flows']}/{hubble['capacity']} flows, at {', '.join(hubble['addresses'])}"),
        *([("Metrics", True, f"at {document['metrics']}")] if document["metrics"] else []),
        *([_exporters(document)] if document["exporters"] else []),
    ]


def _names(names: Mapping[str, Any]) -> list[tuple[str, bool, str]]:
    """Where any matter, or have mattered."""
    if not names or not (names["held"] or names["learned"]):
        return []
    refused = f", {names['refused']:,} withheld" if names["refused"] else ""
    words = f"{names['held']:,} addresses, {names['waiting']:,} on the way{refused}"
    return [("Names", not names["refused"], words)]


def _own_proxies(proxies: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, bool, str]]:
    """Those that are needed, or there."""
    return [
        (name, proxy["connected"], f"process {proxy['pid'] or '-'}, {proxy['restarts']} restarts")
        for name, proxy in proxies.items()
        if proxy["needed"] or proxy["pid"]
    ]


def _exporters(document: Mapping[str, Any]) -> tuple[str, bool, str]:
    failing = document["exporters_failing"]
    return "Exporters", not failing, "; ".join((", ".join(document["exporters"]), *failing))


def _endpoint_table(endpoints: list[Mapping[str, Any]]) -> Table:
    table = _table("ENDPOINT", "POD", "IDENTITY", "INGRESS", "EGRESS", "ADDRESSES")
    for e in endpoints:
        directions = ("enforced" if e["ingress_enforced"] else "open", "enforced" if e["egress_enforced"] else "open")
        pod = f"{e['namespace']}/{e['name']}"
        table.add_row(str(e["id"]), pod, str(e["identity"]), *directions, " ".join(e["addresses"]))
    return table


def _slot_table(slots: list[Mapping[str, Any]]) -> Table:
    table = _table("SLOT", "PROXY PORT", "STATE", "RULES")
    for s in slots:
        rules = "all allowed" if s["allows_all"] else str(s["rules"])
        table.add_row(s["name"], str(s["port"] or "-"), s["state"], rules)
    return table


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, no_wrap=True, overflow="ignore")
    return table


def _colour(good: bool) -> str:
    return "green" if good else "red"

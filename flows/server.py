"""The Hubble API on the wire: observer, peers, health and reflection, on Unix sockets and on TCP, there with TLS."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing

from observer import observer_pb2

from flows.agent_events import compile_events_request
from flows.mask import MaskError
from flows.observer import Observer
from flows.peers import PEER, PeerBook
from flows.predicates import FilterError
from flows.reading import RequestError, compile_request
from flows.rpc.call import Call, Method
from flows.rpc.framing import Code, Refusal
from flows.rpc.methods import answering, health_methods, parsed, reflection_methods, refusing
from flows.rpc.server import Server
from flows.rpc.tls import ServerTls

OBSERVER = observer_pb2.DESCRIPTOR.services_by_name["Observer"].full_name
# Clients compare major.minor with their own and warn when the server's is higher; 0.0 makes none of them warn, also
# those that were built without a version. What follows + takes no part in comparisons.
VERSION_HEADER = "hubble-server-version"


class ServeError(Exception):
    """An address cannot be served; one line that says what to do."""


async def start(
    observer: Observer, addresses: Sequence[str], peers: PeerBook | None = None, tls: ServerTls | None = None
) -> Server:
    """Serve on `unix:///path` and `host:port` addresses, the latter with TLS if there is any; the caller stops the
    server. Raises ServeError."""
    server = Server(methods(observer, peers or PeerBook()))
    for address in addresses:
        try:
            await server.listen(address, tls)
        except (OSError, ValueError, OverflowError):
            await server.stop(None)
            raise ServeError(
                f"cannot serve the Hubble API on {address}: in use or not permitted; choose another address"
            ) from None
    return server


def methods(observer: Observer, peers: PeerBook) -> dict[str, Method]:
    """Everything that is served, by path."""
    return {
        **{f"/{OBSERVER}/{name}": method for name, method in ObserverService(observer, peers).methods().items()},
        f"/{PEER}/Notify": peers.notify,
        **health_methods(),
        **reflection_methods((OBSERVER, PEER)),
    }


class ObserverService:
    """The observer.Observer service."""

    def __init__(self, observer: Observer, peers: PeerBook) -> None:
        self._observer, self._peers = observer, peers
        self._headers = ((VERSION_HEADER, f"0.0.0+deflector-{observer.version}"),)

    def methods(self) -> dict[str, Method]:
        """By name."""
        return {
            "GetFlows": self._get_flows,
            "ServerStatus": answering(self._observer.status, self._headers),
            "GetNodes": answering(self._nodes, self._headers),
            "GetNamespaces": answering(self._observer.namespaces, self._headers),
            "GetAgentEvents": self._get_agent_events,
            "GetDebugEvents": refusing("there are no debug events: this datapath has no debug mode"),
        }

    async def _get_flows(self, call: Call) -> None:
        request = parsed(observer_pb2.GetFlowsRequest(), await call.message())
        try:
            reading = compile_request(request)
        except RequestError as error:
            raise Refusal(Code.INVALID_ARGUMENT, str(error)) from None
        except (FilterError, MaskError) as error:
            # UNKNOWN, since hubble prints the message of such an error without wrapping
            raise Refusal(Code.UNKNOWN, str(error)) from None
        call.open(self._headers)
        async with aclosing(self._observer.flows(reading)) as batches:
            async for batch in batches:
                await call.send(batch)

    async def _get_agent_events(self, call: Call) -> None:
        request = parsed(observer_pb2.GetAgentEventsRequest(), await call.message())
        try:
            reading = compile_events_request(request)
        except RequestError as error:
            raise Refusal(Code.INVALID_ARGUMENT, str(error)) from None
        call.open(self._headers)
        async with aclosing(self._observer.agent_events(reading)) as batches:
            async for batch in batches:
                await call.send(batch)

    async def _nodes(self) -> observer_pb2.GetNodesResponse:
        """This node, with its address as peers know it."""
        answer = await self._observer.nodes()
        for node in answer.nodes:
            if node.name in self._peers:
                peer = self._peers[node.name]
                node.address = peer.address
                node.tls.enabled, node.tls.server_name = bool(peer.server_name), peer.server_name
        return answer

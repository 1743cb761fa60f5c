"""Flows as they are sent: a serialised GetFlowsResponse for each. Pure.

A flow is sent as it lies in the ring. Where a mask is asked for, the parts that events have in common are masked once
and remembered.
"""

from __future__ import annotations

from observer import observer_pb2

from flows.exchange import timestamp
from flows.mask import Mask
from flows.ring import Event
from flows.wire import VARINTS, counted, tag

KEPT = 1024  # common parts that are remembered per reader

_FLOW = tag(observer_pb2.GetFlowsResponse, "flow")
_NODE_NAME, _TIME = tag(observer_pb2.GetFlowsResponse, "node_name"), tag(observer_pb2.GetFlowsResponse, "time")


class Responses:
    """Makes the responses of one reader; time and node are repeated outside the flow, as far as the mask left them."""

    def __init__(self, mask: Mask, node_name: str) -> None:
        self._mask = mask
        self._node = counted(_NODE_NAME, node_name.encode()) if mask.keeps("node_name") else b""
        self._has_time = mask.keeps("time")
        self._masked: dict[bytes, bytes] = {}

    def response(self, event: Event) -> bytes:
        """The response that carries this flow."""
        time_ns, own, common = event[:3]
        if self._mask:
            common, own = self._masked_common(common), self._mask.narrow(own)
        if not self._has_time:
            return b"".join((_FLOW, VARINTS[len(common) + len(own)], common, own, self._node))
        when = timestamp(time_ns)
        return b"".join(
            (_FLOW, VARINTS[len(common) + len(own)], common, own, self._node, _TIME, VARINTS[len(when)], when)
        )

    def _masked_common(self, common: bytes) -> bytes:
        masked = self._masked.get(common)
        if masked is None:
            if len(self._masked) >= KEPT:
                self._masked.clear()
            masked = self._masked[common] = self._mask.parents + self._mask.narrow(common)
        return masked

"""Many flows into one per key: the fields that are asked for, and how many there were by direction. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flow import flow_pb2

from flows.mask import Mask

KEYS_MAX = 65_536  # different keys in one interval; beyond them flows are exported as they are


class Aggregator:
    """Gathers flows until `flush`. Raises MaskError for a field that does not exist."""

    def __init__(self, fields: Iterable[str]) -> None:
        self._mask = Mask(fields)
        self._counts: dict[bytes, flow_pb2.Aggregate] = {}

    def take(self, flow: flow_pb2.Flow) -> bool:
        """Count the flow; False if it is of a new key and there are too many."""
        key = self._mask.parents + self._mask.narrow(flow.SerializeToString(deterministic=True))
        count = self._counts.get(key)
        if count is None:
            if len(self._counts) >= KEYS_MAX:
                return False
            count = self._counts[key] = flow_pb2.Aggregate()
        if flow.traffic_direction == flow_pb2.INGRESS:
            count.ingress_flow_count += 1
        elif flow.traffic_direction == flow_pb2.EGRESS:
            count.egress_flow_count += 1
        else:
            count.unknown_direction_flow_count += 1
        return True

    def flush(self) -> Iterator[flow_pb2.Flow]:
        """One flow per key, in the order in which they first came; the counts begin anew."""
        counts, self._counts = self._counts, {}
        for key, count in counts.items():
            flow = flow_pb2.Flow.FromString(key)
            flow.aggregate.CopyFrom(count)
            yield flow

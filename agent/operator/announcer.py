"""Events (events.k8s.io/v1) on policies that are refused, or that nodes do not enforce. Each once, and not too many.

An event's name is made of what it says about whom, so the same one is found again, by the next leader too: then it is
counted up as a series instead of being made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from agent.cluster.errors import ApiError, Unreachable
from agent.cluster.resources import EVENTS
from agent.operator.leases import microtime
from agent.operator.pen import NotLeading, Pen
from policies.objects import ObjectKey

NOTE_MAX: Final = 1000  # bytes; the API takes 1024
QUEUE_MAX: Final = 500
PER_SECOND: Final = 2.0
REPEAT_SECONDS: Final = 300.0  # until the same is counted up
REMEMBERED: Final = 5000
CONTROLLER: Final = "deflector.io/operator"
CLUSTER_NAMESPACE: Final = "default"  # of events about what is in no namespace
API: Final = {"NetworkPolicy": "networking.k8s.io/v1"}

log = logging.getLogger("deflector.operator")


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be told of an object. `is_warning`: not only for the record."""

    key: ObjectKey
    uid: str
    reason: str
    action: str
    words: str
    is_warning: bool = True

    @property
    def name(self) -> str:
        """The event's."""
        said = "\n".join((self.uid, self.reason, self.words))
        return f"{self.key.name[:200]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}"


class Announcer:
    """`tell` queues, `run` writes. `dropped` counts what had no room."""

    def __init__(self, pen: Pen, instance: str) -> None:
        self.dropped = 0
        self.told = 0
        self._pen = pen
        self._instance = instance[:128]
        self._queue: asyncio.Queue[Note] = asyncio.Queue(QUEUE_MAX)
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()  # when, and how often, by name

    def tell(self, note: Note) -> None:
        """Tell it, unless it was told a moment ago."""
        now = asyncio.get_running_loop().time()
        last, count = self._seen.get(note.name, (None, 0))
        if last is not None and now - last < REPEAT_SECONDS:
            return
        try:
            self._queue.put_nowait(note)
        except asyncio.QueueFull:
            self.dropped += 1
            return
        self._seen[note.name] = (now, count + 1)
        self._seen.move_to_end(note.name)
        while len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    async def run(self) -> None:
        """Write events, for ever."""
        while True:
            note = await self._queue.get()
            try:
                await self._write(note)
                self.told += 1
            except (ApiError, Unreachable) as error:
                self.dropped += 1
                log.warning("an event on %s cannot be written: %s", note.key, error)
            except NotLeading:
                self.dropped += 1
            await asyncio.sleep(1 / PER_SECOND)

    async def _write(self, note: Note) -> None:
        namespace, now = note.key.namespace or CLUSTER_NAMESPACE, microtime(datetime.now(UTC))
        try:
            await self._pen.create(EVENTS, namespace, self._body(note, namespace, now))
        except ApiError as error:
            if not error.is_taken:
                raise
            count = max(2, self._seen.get(note.name, (0.0, 2))[1])
            series = {"count": count, "lastObservedTime": now}
            await self._pen.patch(EVENTS, namespace, note.name, {"series": series})

    def _body(self, note: Note, namespace: str, now: str) -> dict[str, Any]:
        regarding = {
            "apiVersion": API.get(note.key.kind, "cilium.io/v2"),
            "kind": note.key.kind,
            "name": note.key.name,
            "uid": note.uid,
            **({"namespace": note.key.namespace} if note.key.namespace else {}),
        }
        return {
            "metadata": {"name": note.name, "namespace": namespace},
            "eventTime": now,
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance,
            "action": note.action,
            "reason": note.reason,
            "type": "Warning" if note.is_warning else "Normal",
            "note": _cut(note.words),
            "regarding": regarding,
        }


def _cut(words: str) -> str:
    written = words.encode()
    return words if len(written) <= NOTE_MAX else written[: NOTE_MAX - 3].decode(errors="ignore") + "…"

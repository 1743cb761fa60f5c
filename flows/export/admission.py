"""Who gets into a queue that is full: denials, for they are dropped last. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

QUEUE_EVENTS: Final = 8_192  # that may wait for one exporter ...
DENIALS_MORE: Final = 4_096  # ... and so many denials beyond them
# Field 2 of a flow, verdict, with the value DROPPED. Other fields may look like it: then a few events too many are
# taken for denials, and never one too few, unless the field is masked out.
_DENIED: Final = b"\x10\x02"


def admitted(responses: Sequence[bytes], waiting: int) -> Sequence[bytes]:
    """Those of the serialised responses that there is room for, while so many wait."""
    room = max(0, QUEUE_EVENTS - waiting)
    if len(responses) <= room:
        return responses
    taken = [*responses[:room]]
    left = QUEUE_EVENTS + DENIALS_MORE - waiting - len(taken)
    denials = (wire for wire in responses[room:] if _DENIED in wire)
    return [*taken, *(wire for wire, _ in zip(denials, range(max(0, left)), strict=False))]

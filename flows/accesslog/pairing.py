"""Access-log records -> the halves of exchanges: one REQUEST per exchange, and one RESPONSE if there was one. Pure.

An allowed request is logged twice: when it is forwarded and when its exchange ends. A denied one, and one that found
no upstream, are logged at the end only. So the end must know whether its request was already told of: forwarded
requests are counted per exchange, and identical concurrent ones (HTTP/2 streams) are interchangeable.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from flows.record import HttpExchange, HttpHalf, HttpRecord

OPEN_EXCHANGES = 16384  # distinct exchanges remembered (10 MB); the oldest beyond that is forgotten and told of twice


class Pairing:
    """Remembers which forwarded requests have not ended. `forgotten` counts those it could not keep."""

    def __init__(self, limit: int = OPEN_EXCHANGES) -> None:
        self._limit = limit
        self._open: OrderedDict[HttpExchange, int] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._open)

    def halves(self, records: Iterable[HttpRecord]) -> list[HttpHalf]:
        """What these records newly tell, in order."""
        told: list[HttpHalf] = []
        forwarded = self._open
        for record in records:
            exchange = record.exchange
            if not record.ended:
                self._remember(exchange)
                told.append(HttpHalf(record, False))
                continue
            denied = record.denied_by is not None
            count = 0 if denied else forwarded.get(exchange, 0)
            if count == 0:
                told.append(HttpHalf(record, False, denied))
            elif count == 1:
                del forwarded[exchange]
            else:
                forwarded[exchange] = count - 1
            if record.code:
                told.append(HttpHalf(record, True))
        return told

    def _remember(self, exchange: HttpExchange) -> None:
        forwarded = self._open
        count = forwarded.get(exchange, 0)
        forwarded[exchange] = count + 1
        if count:
            forwarded.move_to_end(exchange)
        elif len(forwarded) > self._limit:
            self.forgotten += forwarded.popitem(last=False)[1]

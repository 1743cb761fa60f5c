"""Access-log records -> the halves of exchanges: one REQUEST per exchange, and one RESPONSE if there was one. Pure.

An exchange is logged when it ends; one that takes longer is logged before as well, perhaps more than once. So the first
record of an exchange tells its request, and its end the response.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from flows.record import HttpExchange, HttpHalf, HttpRecord

OPEN_EXCHANGES = 16384  # open exchanges remembered (10 MB); the oldest beyond that is forgotten and told of twice


class Pairing:
    """Remembers which requests were told of and have not ended. `forgotten` counts those it could not keep."""

    def __init__(self, limit: int = OPEN_EXCHANGES) -> None:
        self._limit = limit
        self._open: OrderedDict[HttpExchange, None] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._open)

    def halves(self, records: Iterable[HttpRecord]) -> list[HttpHalf]:
        """What these records newly tell, in order."""
        told: list[HttpHalf] = []
        known = self._open
        for record in records:
            exchange = record.exchange
            if not record.ended:
                if exchange not in known:
                    self._remember(exchange)
                    told.append(HttpHalf(record, False))
                continue
            if exchange in known:
                del known[exchange]
            else:
                told.append(HttpHalf(record, False, record.denied_by is not None))
            if record.code:
                told.append(HttpHalf(record, True))
        return told

    def _remember(self, exchange: HttpExchange) -> None:
        self._open[exchange] = None
        if len(self._open) > self._limit:
            self._open.popitem(last=False)
            self.forgotten += 1

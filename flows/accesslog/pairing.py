"""Access-log records -> what they newly tell: one REQUEST per exchange, and one RESPONSE if there was one. Pure.

An exchange is logged when it ends; one that takes longer is logged before as well, perhaps more than once. So the first
record of an exchange tells its request, and its end the response.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from flows.record import HttpExchange, HttpNews, HttpRecord

OPEN_EXCHANGES = 16384  # open exchanges remembered (10 MB); the oldest beyond that is forgotten and told of twice


class Pairing:
    """Remembers which requests were told of and have not ended. `forgotten` counts those it could not keep."""

    def __init__(self, limit: int = OPEN_EXCHANGES) -> None:
        self._limit = limit
        self._open: OrderedDict[HttpExchange, None] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._open)

    def news(self, records: Iterable[HttpRecord]) -> list[HttpNews]:
        """What these records newly tell, in order; those that tell nothing new are left out."""
        told: list[HttpNews] = []
        known = self._open
        for record in records:
            exchange = record.exchange
            is_new = exchange not in known
            if not record.ended:
                if is_new:
                    self._remember(exchange)
                    told.append(HttpNews(record, True, False))
                continue
            if not is_new:
                del known[exchange]
            if is_new or record.code:
                told.append(HttpNews(record, is_new, record.code != 0))
        return told

    def _remember(self, exchange: HttpExchange) -> None:
        self._open[exchange] = None
        if len(self._open) > self._limit:
            self._open.popitem(last=False)
            self.forgotten += 1

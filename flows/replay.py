"""Flows from lines of JSON instead of a server, with the meaning of `hubble observe --input-file`. Pure.

Lines are taken in their order; filters, times, --first and --last apply, a field mask and --follow do not.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from flow import flow_pb2
from google.protobuf import json_format
from observer import observer_pb2

from flows.filters import compile_filters
from flows.request import NUMBER_ALL, OptionError

LAST_MAX = 1_000_000
LINE_MAX = 1 << 20  # characters of one line
SHOWN = 200  # characters of a line that cannot be read


class Replay:
    """One request over a stream of lines. Raises FilterError, or OptionError for a --last that is too much."""

    def __init__(self, request: observer_pb2.GetFlowsRequest) -> None:
        self._wants = compile_filters(request.whitelist, request.blacklist)
        self._wants_news = _news_filter(request)
        self._since, self._until = _moment(request, "since"), _moment(request, "until")
        number = request.number if request.number != NUMBER_ALL else 0
        if not request.first and number > LAST_MAX:
            raise OptionError(f"--last must be <= 1_000_000, got {number}")
        self._left = number if request.first and number else None
        self._last: deque[observer_pb2.GetFlowsResponse] | None = None
        if number and not request.first:
            self._last = deque(maxlen=number)
        self._lenient = False
        self.complaint = ""  # about the line that was fed last

    @property
    def is_done(self) -> bool:
        """Whether no more lines are needed."""
        return self._left == 0

    def feed(self, line: str) -> observer_pb2.GetFlowsResponse | None:
        """What this line gives now; None if it is not wanted, held for later, or cannot be read (see `complaint`)."""
        self.complaint = ""
        response = self._parsed(line)
        if response is None or not self._is_wanted(response):
            return None
        if self._last is not None:
            self._last.append(response)
            return None
        if self._left is not None:
            self._left -= 1
        return response

    def rest(self) -> list[observer_pb2.GetFlowsResponse]:
        """What was held: the last ones, after the last line."""
        return list(self._last or ())

    def _is_wanted(self, response: observer_pb2.GetFlowsResponse) -> bool:
        time = (response.time.seconds, response.time.nanos)
        if (self._since and time < self._since) or (self._until and time > self._until):
            return False
        return self._wants(response.flow) if response.HasField("flow") else self._wants_news

    def _parsed(self, line: str) -> observer_pb2.GetFlowsResponse | None:
        if len(line) > LINE_MAX:
            self.complaint = f"a line of more than {LINE_MAX} characters is left out"
            return None
        try:
            return self._parse(line)
        except (json_format.ParseError, RecursionError) as error:
            strict = " ".join(str(error).split())
        if not self._lenient:  # written by somebody newer?
            self._lenient = True
            try:
                found = self._parse(line)
            except (json_format.ParseError, RecursionError):
                self._lenient = False
            else:
                self.complaint = f"fields that are not known here are left out: {strict}"
                return found
        self.complaint = f"not a response in JSON: {line[:SHOWN]!r}: {strict}"
        return None

    def _parse(self, line: str) -> observer_pb2.GetFlowsResponse:
        return json_format.Parse(line, observer_pb2.GetFlowsResponse(), ignore_unknown_fields=self._lenient)


def _news_filter(request: observer_pb2.GetFlowsRequest) -> bool:
    """Whether filters let pass what is no flow (losses, news of nodes): as a flow of which nothing is known, but not by
    its id or IP version."""
    allow, deny = (
        [one for one in f if not one.uuid and not one.ip_version] for f in (request.whitelist, request.blacklist)
    )
    if request.whitelist and not allow:
        return False
    return compile_filters(allow, deny)(flow_pb2.Flow())


def _moment(request: Any, field: str) -> tuple[int, int] | None:
    if not request.HasField(field):
        return None
    time = getattr(request, field)
    return time.seconds, time.nanos

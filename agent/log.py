"""The node's log: a line per event on stderr, coloured on a terminal. Nothing else configures logging."""

from __future__ import annotations

import logging
import os
import sys

_COLOURS = {logging.WARNING: "\033[33m", logging.ERROR: "\033[31m", logging.CRITICAL: "\033[31;1m"}


class LineFormatter(logging.Formatter):
    """`12:34:56.789 warning: text`; info carries no level, and a line break in a message never makes a second line."""

    def __init__(self, colour: bool) -> None:
        super().__init__("%(asctime)s.%(msecs)03d %(message)s", datefmt="%H:%M:%S")
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        record = logging.makeLogRecord(record.__dict__)
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        record.msg, record.args = level + record.getMessage().replace("\n", " | "), None
        line = super().format(record)
        colour = _COLOURS.get(record.levelno, "")
        return f"{colour}{line}\033[0m" if self._colour and colour else line


def configure(level: int = logging.INFO) -> None:
    """Send the node's log to stderr."""
    terminal = sys.stderr.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(terminal))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("deflector").setLevel(level)

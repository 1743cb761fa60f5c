"""Ctrl-C while modules are imported: nothing has been done yet, so the process ends at once and without a word.

A KeyboardInterrupt raised there is a traceback of somebody's import, or is lost in a callback of C code. Imported
first, so it imports next to nothing.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

EXIT_CODE = 130  # of a shell, for a process that SIGINT has ended


@contextmanager
def quietly() -> Iterator[None]:
    """For a block of imports. Elsewhere Ctrl-C is what it was: commands have something to take down."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, or somebody's who knows better
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(EXIT_CODE))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

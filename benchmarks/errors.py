"""The one way in which a benchmark fails: what it wanted to measure was not there to be measured."""

from __future__ import annotations


class NotMeasured(Exception):
    """A figure cannot be had; one line that says why and what to do."""

"""What can go wrong with an API server: it answers no, or it does not answer. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

NOT_FOUND: Final = 404
CONFLICT: Final = 409
GONE: Final = 410


class ApiError(Exception):
    """The API server refused. `status` is the HTTP status, `reason` the word of its Status object (NotFound, Conflict,
    AlreadyExists, Expired, Forbidden ...), `retry_after` the seconds that it asks to wait, if it does."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{message or reason or 'no reason given'} (HTTP {status})")
        self.status = status
        self.reason = reason
        self.retry_after = retry_after

    @classmethod
    def of_status(cls, raw: Mapping[str, Any], status: int = 0) -> ApiError:
        """The error that a Status object tells of."""
        details = raw.get("details")
        seconds = details.get("retryAfterSeconds") if isinstance(details, dict) else None
        return cls(
            int(raw.get("code") or status),
            str(raw.get("reason") or ""),
            " ".join(str(raw.get("message") or "").split()),
            float(seconds) if isinstance(seconds, int | float) and seconds else None,
        )

    @property
    def is_missing(self) -> bool:
        """No such object, or no such kind of objects."""
        return self.status == NOT_FOUND

    @property
    def is_taken(self) -> bool:
        """An object of that name exists already."""
        return self.status == CONFLICT and self.reason == "AlreadyExists"

    @property
    def is_conflict(self) -> bool:
        """Somebody else has changed the object meanwhile, or owns the field."""
        return self.status == CONFLICT and self.reason != "AlreadyExists"

    @property
    def is_expired(self) -> bool:
        """What was asked for is older than what the server remembers."""
        return self.status == GONE or self.reason in ("Expired", "Gone")


class Unreachable(Exception):
    """No answer, half an answer, or one that is none of an API server. `str()` says what was seen, in one line."""

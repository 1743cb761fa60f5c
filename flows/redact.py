"""What flows must not tell: query strings, passwords, tokens. Done before a flow is made, so no reader sees them. Pure.

By default queries and fragments of URLs, what stands before the @ of a host, and the values of headers that carry
credentials are not shown. The options are those of Hubble (facts 5.2), which redacts nothing unless it is told to:
`everything` is its hubble-redact-enabled.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from flows.record import Headers, HttpRecord, KafkaRecord

REDACTED = "HUBBLE_REDACTED"
# Headers that carry credentials, whatever stands before or behind: authorization, x-api-key, x-auth-token ...
CREDENTIALS = re.compile(
    r"(?:^|[-_])(?:proxy)?(?:authorization|cookie2?|tokens?|secrets?|pass(?:word|wd|phrase)?|credentials?|session(?:[-_]?id)?"
    r"|signature|jwt|assertion|api[-_]?key|access[-_]?key|private[-_]?key|auth|otp|csrf|xsrf)(?:$|[-_])"
)
URL_HEADERS = frozenset(  # their values are URLs, or paths of some
    ("referer", "referrer", "location", "content-location", "x-original-url", "x-rewrite-url", "x-envoy-original-path")
)
KEPT = 1024  # names that are remembered

_URL = HttpRecord._fields.index("url")


@dataclass(frozen=True, slots=True)
class Redaction:
    """`allow` and `deny` are names of headers in lower case; what is allowed is shown even if it is a credential."""

    everything: bool = False  # every header but `allow`, or if only that is given, those in `deny`
    url_query: bool = True
    user_info: bool = True
    allow: frozenset[str] = field(default_factory=frozenset)
    deny: frozenset[str] = field(default_factory=frozenset)
    kafka_api_key: bool = False


class Redactor:
    """Redacts records; what it has no reason to touch it returns as it is."""

    def __init__(self, wanted: Redaction) -> None:
        self._wanted = wanted
        self._plain: set[str] = set()  # names whose values are shown as they are

    def http(self, record: HttpRecord) -> HttpRecord:
        """The record as a flow may show it. What identifies the exchange stays: it is not shown.

        Most records have nothing to hide, and are looked at in half a microsecond.
        """
        url, plain = record.url, self._plain
        hides = bool(record.missing_headers or record.rejected_headers)
        for key, _ in record.request_headers:
            if key not in plain:
                hides = True
        for key, _ in record.response_headers:
            if key not in plain:
                hides = True
        if hides:
            return self._redacted(record)
        if "?" in url or "#" in url or "@" in url:  # most often; a fifth of what _replace takes
            return HttpRecord._make((*record[:_URL], self.url(url), *record[_URL + 1 :]))
        return record

    def _redacted(self, record: HttpRecord) -> HttpRecord:
        return record._replace(
            url=self.url(record.url),
            request_headers=self.headers(record.request_headers),
            response_headers=self.headers(record.response_headers),
            missing_headers=self.headers(record.missing_headers),
            rejected_headers=self.headers(record.rejected_headers),
        )

    def kafka(self, record: KafkaRecord) -> KafkaRecord:
        """The record as a flow may show it."""
        return record._replace(api_key=REDACTED) if self._wanted.kafka_api_key else record

    def url(self, url: str) -> str:
        """Without query and fragment, and without what stands before the host; a user with a password keeps the name,
        as in Hubble."""
        if self._wanted.url_query and ("?" in url or "#" in url):
            url = url.partition("?")[0].partition("#")[0]
        if self._wanted.user_info and "@" in url:
            url = _without_user(url)
        return url

    def headers(self, headers: Headers) -> Headers:
        """The same names, with such values as may be shown."""
        return tuple((key, self._value(key, value)) for key, value in headers)

    def _value(self, key: str, value: str) -> str:
        if key in self._plain:
            return value
        name = key.lower()
        if name in self._wanted.allow:
            return self._known(key, value)
        if self._is_hidden(name):
            return REDACTED
        return self.url(value) if name in URL_HEADERS else self._known(key, value)

    def _known(self, key: str, value: str) -> str:
        if len(self._plain) >= KEPT:
            self._plain.clear()
        self._plain.add(key)
        return value

    def _is_hidden(self, name: str) -> bool:
        wanted = self._wanted
        if name in wanted.deny or CREDENTIALS.search(name):
            return True
        return wanted.everything and not (wanted.deny and not wanted.allow)


def _without_user(url: str) -> str:
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if not at:
        return url
    name, colon, _ = user.partition(":")
    shown = f"{name}:{REDACTED}" if colon else REDACTED
    return f"{scheme}://{shown}@{host}{slash}{path}"


def header_names(words: Iterable[str]) -> frozenset[str]:
    """Names as people type them: separated by commas or blanks, in any case."""
    return frozenset(name.lower() for word in words for name in re.split(r"[,\s]+", word) if name)

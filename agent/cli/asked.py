"""What `deflector policy explain` is asked beside the connection: an HTTP request, a DNS name, a Kafka request."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from policies.explaining.explain import Asked
    from policies.judging.kafka import KafkaRequest
    from policies.judging.requests import Request
    from policies.types import Protocol

ALL_TOPICS: Final = "*"
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OPTIONS: Final = (
    click.option("--method", help="Ask for an HTTP request with this method.  [default: GET]"),
    click.option("--path", help="... this path, with its query string.  [default: /]"),
    click.option("--host", help="... this host.  [default: as a client would say that connects to --to]"),
    click.option(
        "--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="... this header; may be repeated."
    ),
    click.option("--dns", metavar="NAME", help="Ask for a DNS query of this name."),
    click.option("--kafka-api", metavar="API", help="Ask for a Kafka request: produce, fetch ...  [default: produce]"),
    click.option("--kafka-topic", "topics", multiple=True, help="... of this topic, or '*' for all; may be repeated."),
    click.option("--kafka-client-id", help="... by a client that calls itself so."),
    click.option(
        "--kafka-version", type=click.IntRange(0, 32767), help="... of this version.  [default: the latest known]"
    ),
)


@dataclass(frozen=True, slots=True)
class AskedOptions:
    """As they are written; None and () were not given."""

    method: str | None
    path: str | None
    host: str | None
    headers: tuple[str, ...]
    dns: str | None
    kafka_api: str | None
    topics: tuple[str, ...]
    kafka_client_id: str | None
    kafka_version: int | None

    def on(self, target: str, port: int, protocol: Protocol) -> Asked | None:
        """What is asked of this target; None if nothing is. Raises click.UsageError for what nobody could ask."""
        from policies.judging.names import NameQuery
        from policies.types import Protocol

        has_http = any(value is not None for value in (self.method, self.path, self.host)) or bool(self.headers)
        kafka = (self.kafka_api, self.kafka_client_id, self.kafka_version)
        has_kafka = any(value is not None for value in kafka) or bool(self.topics)
        if has_http + has_kafka + (self.dns is not None) > 1:
            raise click.UsageError("ask for one thing: an HTTP request, a DNS name, or a Kafka request")
        over = (Protocol.TCP, Protocol.UDP) if self.dns is not None else (Protocol.TCP,)
        if (has_http or has_kafka or self.dns is not None) and protocol not in over:
            what = "an HTTP request" if has_http else "a Kafka request" if has_kafka else "a DNS query"
            raise click.UsageError(f"{what} needs {' or '.join(p.name for p in over)}, not {protocol.name}")
        if has_http:
            return self._http(target, port)
        if has_kafka:
            return self._kafka()
        if self.dns is None:
            return None
        from policies.reading.dns_names import name_fault

        if self.dns != "." and (fault := name_fault(self.dns)):
            raise click.UsageError(f"--dns {fault}")
        return NameQuery(self.dns)

    def _http(self, target: str, port: int) -> Request:
        from policies.judging.requests import Request

        if self.path is not None and not self.path.startswith("/"):
            raise click.UsageError(f'--path {self.path!r} must begin with "/"')
        host = self.host
        if host is None:
            name = target.rpartition("/")[2]
            host = f"[{name}]" if ":" in name and not name.startswith("[") else name
            host += f":{port}" if port != 80 else ""
        return Request(self.method or "GET", self.path or "/", host, tuple(map(_header, self.headers)))

    def _kafka(self) -> KafkaRequest:
        from policies.judging.kafka import KafkaRequest
        from policies.kafka_keys import KEYS, key_of, last_version

        key = key_of(self.kafka_api or "produce")
        if key is None:
            known = ", ".join(list(KEYS)[:3])
            raise click.UsageError(f"--kafka-api {self.kafka_api!r} is none of Kafka's APIs ({known} ...)")
        version = last_version(key) if self.kafka_version is None else self.kafka_version
        named = tuple(topic for topic in self.topics if topic != ALL_TOPICS)
        if named and len(named) < len(self.topics):
            raise click.UsageError(f"--kafka-topic {ALL_TOPICS} asks for all topics: name no others beside it")
        return KafkaRequest(key, version, self.kafka_client_id or "", named, is_of_all=bool(self.topics) and not named)


def asked_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options, given to the command as one `asked`."""

    @wraps(command)
    def with_asked(*words: Any, **options: Any) -> None:
        asked = AskedOptions(**{name: options.pop(name) for name in AskedOptions.__dataclass_fields__})
        command(*words, asked=asked, **options)

    made: Callable[..., None] = with_asked
    for option in reversed(_OPTIONS):
        made = option(made)
    return made


def _header(written: str) -> tuple[str, str]:
    name, colon, value = written.partition(":")
    if not colon or not _HEADER.fullmatch(name):
        raise click.UsageError(f"--header {written!r} is not 'NAME: VALUE'")
    return name, value.strip()

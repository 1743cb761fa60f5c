"""Real resolvers inside the pods: dig, getaddrinfo of glibc, c-ares, and curl, which goes on to connect.

Each ends in a Reply. glibc is told its nameserver by a resolv.conf that is mounted for that one process.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from conformance import netns
from conformance.question import Client, Question, Resolution

PATIENCE = 5.0  # seconds for an answer that should come
DROP_PATIENCE = 1  # seconds for one that should not: the least that resolvers can be told
DIG_SILENCE = ("timed out", "no servers could be reached")
CURL_UNRESOLVED = (6, 28)  # its exit codes: no such host, or no word of it in time
CURL_REPORT = "%{http_code} %{remote_ip}"
FETCHED = "/v1/"  # what the servers of a galaxy have
GETENT_UNKNOWN = 2
NO_ANSWER = "TIMEOUT"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a resolver got: `rcode` is DNS's word, or TIMEOUT; resolvers that do not tell it say NOERROR or FAILED."""

    rcode: str
    addresses: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    arrived_by: str = ""
    fetched: str = ""  # curl only: status, and from which address
    note: str = ""

    def __str__(self) -> str:
        parts = (self.rcode, ",".join(self.addresses), self.fetched, f"({self.note})" if self.note else "")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question made concrete: from which namespace and address, to which address."""

    question: Question
    namespace: str
    local: tuple[str, int]
    remote: tuple[str, int]
    folder: Path

    @property
    def patience(self) -> float:
        return DROP_PATIENCE if self.question.expect is Resolution.DROPPED else PATIENCE

    def command(self) -> list[str]:
        """The command line that asks, and asks again whoever repeats it."""
        return netns.inside(self.namespace, _COMMANDS[self.question.client](self))

    def __str__(self) -> str:
        return shlex.join(self.command())


def _dig(inquiry: Inquiry) -> list[str]:
    question, wait = inquiry.question, f"+time={inquiry.patience:.0f}"
    options = ["+tcp"] if question.over == "tcp" else []
    options += ["+dnssec"] if question.dnssec else []
    source = ["-b", f"{inquiry.local[0]}#{inquiry.local[1]}"]
    return ["dig", "+yaml", "+tries=1", wait, *options, *source, f"@{inquiry.remote[0]}", "-p", str(inquiry.remote[1]),
            question.name, question.qtype]  # fmt: skip


def _glibc(inquiry: Inquiry) -> list[str]:
    return _with_resolv_conf(inquiry, ["getent", "ahosts", inquiry.question.name])


def _curl(inquiry: Inquiry) -> list[str]:
    limit = f"{inquiry.patience:g}"
    fetch = ["curl", "-sS", "-q", "--noproxy", "*", "--connect-timeout", limit, "--max-time", limit, "-o", "/dev/null",
             "-w", CURL_REPORT]  # fmt: skip
    return _with_resolv_conf(
        inquiry, [*fetch, f"-{inquiry.question.family}", f"http://{inquiry.question.name}{FETCHED}"]
    )


def _cares(inquiry: Inquiry) -> list[str]:
    question, address = inquiry.question, inquiry.remote
    return [sys.executable, "-m", "conformance.cares", address[0], str(address[1]), question.name, question.qtype,
            f"{inquiry.patience:g}"]  # fmt: skip


def _with_resolv_conf(inquiry: Inquiry, argv: Sequence[str]) -> list[str]:
    path = inquiry.folder / f"resolv-{inquiry.local[1]}.conf"
    path.write_text(f"nameserver {inquiry.remote[0]}\noptions timeout:{inquiry.patience:.0f} attempts:1\n")
    script = f"mount --bind {shlex.quote(str(path))} /etc/resolv.conf && exec {shlex.join(argv)}"
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]


_COMMANDS = {Client.DIG: _dig, Client.GLIBC: _glibc, Client.CARES: _cares, Client.CURL: _curl}


async def resolve(inquiry: Inquiry) -> Reply:
    """Ask, and say how it ended."""
    process = await asyncio.create_subprocess_exec(
        *inquiry.command(),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(inquiry.patience + PATIENCE):
            out, complaint = await process.communicate()
    except BaseException as error:
        process.kill()
        await process.wait()
        if isinstance(error, TimeoutError):
            return Reply(NO_ANSWER, note=f"{inquiry.question.client} did not end")
        raise
    assert process.returncode is not None
    read = _READERS[inquiry.question.client]
    return read(process.returncode, out.decode("utf-8", "replace"), complaint.decode("utf-8", "replace").strip())


def _read_dig(code: int, out: str, complaint: str) -> Reply:
    if code:
        silent = any(words in out + complaint for words in DIG_SILENCE)
        return Reply(NO_ANSWER if silent else "FAILED", note=" ".join((complaint or out).split())[:200])
    message = yaml.safe_load(out)[0]["message"]
    said: dict[str, Any] = message["response_message_data"]
    records = tuple(map(str, said.get("ANSWER_SECTION") or ()))
    fields = [record.split() for record in records]
    addresses = tuple(sorted(field[4] for field in fields if field[3] in ("A", "AAAA")))
    return Reply(said["status"], addresses, records, str(message["socket_protocol"]).lower())


def _read_getent(code: int, out: str, complaint: str) -> Reply:
    if code == GETENT_UNKNOWN:
        return Reply("FAILED", note="getent found nothing")
    addresses = tuple(sorted({line.split()[0] for line in out.splitlines() if line}))
    return Reply("FAILED" if code else "NOERROR", addresses, note=complaint)


def _read_cares(code: int, out: str, complaint: str) -> Reply:
    rcode, *addresses = out.split() or ["FAILED"]
    return Reply(rcode, tuple(sorted(addresses)), note=complaint)


def _read_curl(code: int, out: str, complaint: str) -> Reply:
    if code in CURL_UNRESOLVED and not out.split()[1:]:
        return Reply("FAILED", note=complaint)
    return Reply("NOERROR", fetched=out.strip(), note=complaint)


_READERS = {Client.DIG: _read_dig, Client.GLIBC: _read_getent, Client.CARES: _read_cares, Client.CURL: _read_curl}

"""kubectl as a process: what the user's own kubectl may do, we may, and nothing else. Starts kubectl only.

Ctrl-C is for us: each kubectl is in a session of its own, so that what cleans up is not interrupted itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from conformance.errors import EnvironmentFailure

TIMEOUT = 60.0  # seconds for a command that waits for nothing
REACH = 10  # seconds until the API server must have answered
FORWARD_PATIENCE = 20.0  # seconds until a forwarded port is open
COMPLAINT_MAX = 300  # characters
_FORWARDING = re.compile(rb"Forwarding from 127\.0\.0\.1:(\d+) ->")

Raw = dict[str, Any]


class KubectlFailure(EnvironmentFailure):
    """kubectl has said no; `complaint` is what it said."""

    def __init__(self, command: str, complaint: str) -> None:
        super().__init__(f"kubectl {command}: {complaint}")
        self.complaint = complaint


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Which kubectl, and which cluster it is told to speak to ("": as its own configuration says)."""

    program: str = "kubectl"
    context: str = ""
    kubeconfig: str = ""

    def argv(self, *words: str) -> list[str]:
        """A whole command line."""
        named = (("--context", self.context), ("--kubeconfig", self.kubeconfig))
        return [self.program, *(word for name, value in named if value for word in (name, value)), *words]

    async def run(self, *words: str, stdin: str = "", timeout: float = TIMEOUT) -> str:
        """Standard output of a command that succeeds. Raises KubectlFailure, EnvironmentFailure if there is none."""
        code, out, complaint = await self.outcome(*words, stdin=stdin, timeout=timeout)
        if code:
            raise KubectlFailure(words[0], complaint or f"exit code {code}")
        return out

    async def outcome(self, *words: str, stdin: str = "", timeout: float = TIMEOUT) -> tuple[int, str, str]:
        """Exit code, standard output, and its complaint in one line. Raises KubectlFailure if it does not end."""
        process = await self.start(*words)
        try:
            async with asyncio.timeout(timeout):
                out, complaint = await process.communicate(stdin.encode())
        except TimeoutError:
            raise KubectlFailure(words[0], f"has not ended after {timeout:.0f} s") from None
        finally:
            await end(process)
        return process.returncode or 0, out.decode("utf-8", "replace"), in_one_line(complaint)

    async def read(self, *words: str, timeout: float = TIMEOUT) -> Raw:
        """The JSON document that a command prints. Raises EnvironmentFailure."""
        text = await self.run(*words, "-o", "json", timeout=timeout)
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise KubectlFailure(words[0], f"printed no JSON: {text[:80]!r}")
        return found

    async def items(self, kind: str, *words: str) -> list[Raw]:
        """The objects of a kind (kinds: separated by commas). Raises EnvironmentFailure."""
        found: list[Raw] = (await self.read("get", kind, *words)).get("items") or []
        return found

    async def apply(self, objects: list[Raw]) -> None:
        """Make objects, or make them like this. Raises EnvironmentFailure."""
        if objects:
            document = {"apiVersion": "v1", "kind": "List", "items": objects}
            await self.run("apply", "-f", "-", stdin=json.dumps(document))

    async def delete(self, objects: Sequence[Raw]) -> None:
        """Take objects away, if they are there. Raises EnvironmentFailure."""
        names = [{key: raw[key] for key in ("apiVersion", "kind")} | {"metadata": _identity(raw)} for raw in objects]
        document = {"apiVersion": "v1", "kind": "List", "items": names}
        await self.run("delete", "-f", "-", "--ignore-not-found", "--wait=false", stdin=json.dumps(document))

    async def server_version(self) -> str:
        """Proves that the cluster can be reached. Raises EnvironmentFailure."""
        try:
            document = await self.read("version", f"--request-timeout={REACH}s", timeout=2 * REACH)
        except KubectlFailure as failure:
            raise EnvironmentFailure(f"the cluster cannot be reached: {failure.complaint}") from None
        if "serverVersion" not in document:
            raise EnvironmentFailure("the cluster cannot be reached: 'kubectl version' tells of no server")
        return str(document["serverVersion"].get("gitVersion", "unknown"))

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        """A command that goes on, with pipes; `end` it. Raises EnvironmentFailure if there is no kubectl."""
        try:
            return await asyncio.create_subprocess_exec(
                *self.argv(*words),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=16 << 20,
            )
        except OSError as error:
            why = "is not installed" if isinstance(error, FileNotFoundError) else f"cannot be run: {error.strerror}"
            raise EnvironmentFailure(f"{self.program} {why}: name one that can with --kubectl") from None

    @asynccontextmanager
    async def forwarded(self, namespace: str, target: str, port: int) -> AsyncIterator[int]:
        """A port of this machine's loopback interface that leads to `target` (service/NAME) for the length of the
        block. Raises EnvironmentFailure."""
        process = await self.start("-n", namespace, "port-forward", "--address=127.0.0.1", target, f":{port}")
        try:
            yield await _forwarding(process, target)
        finally:
            await end(process)


def _identity(raw: Raw) -> Raw:
    return {key: raw["metadata"][key] for key in ("name", "namespace")}


async def _forwarding(process: asyncio.subprocess.Process, target: str) -> int:
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        async with asyncio.timeout(FORWARD_PATIENCE):
            while line := await process.stdout.readline():
                if found := _FORWARDING.match(line):
                    return int(found[1])
            complaint = in_one_line(await process.stderr.read())
    except TimeoutError:
        complaint = f"not open after {FORWARD_PATIENCE:.0f} s"
    raise KubectlFailure("port-forward", f"{target}: {complaint}")


async def end(process: asyncio.subprocess.Process) -> None:
    """End a process, if it has not ended, and wait for it; and what it has started, which has its pipes."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def in_one_line(complaint: bytes) -> str:
    """What kubectl complains of: the lines that say so, without its own preludes."""
    lines = [line.strip() for line in complaint.decode("utf-8", "replace").splitlines() if line.strip()]
    plain = [line for line in lines if not re.match(r"[EWI]\d{4} ", line)] or lines  # klog repeats what follows
    text = " / ".join(line.removeprefix("error: ").removeprefix("Error from server ") for line in plain)
    return text if len(text) <= COMPLAINT_MAX else text[: COMPLAINT_MAX - 1] + "…"

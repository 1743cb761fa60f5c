"""Tells the Star Wars story on a real galaxy: policies, commands, their real output, the flows, and who is right.

Flow lines are those of `deflector observe`, which runs beside the story as it would in a user's other terminal.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.syntax import Syntax
from rich.text import Text

from conformance import netns
from conformance.blueprint import star_wars
from conformance.errors import NotEnforced, first_cause
from conformance.galaxy import Galaxy, galaxy
from conformance.manifests import policy_file
from conformance.node import DEFLECTOR, Node, running
from conformance.report import versions
from conformance.screenplay import STORY, Chapter, Move

EXAMPLES = Path(__file__).parent.parent / "examples"
POLICY_FILE = policy_file("rule1")
COMMAND_PATIENCE = 10.0  # seconds that a command of the story may take
FLOW_PATIENCE = 3.0  # seconds until an expected flow line is printed
# Requests, verdicts, drops, and of the packets that pass only the first that reaches a pod.
FLOW_FILTERS = (
    *("--type", "l7", "--type", "drop", "--type", "policy-verdict", "--type", "trace:to-endpoint"),
    *("--not", "--tcp-flags", "SYN,ACK", "--not", "--tcp-flags", "FIN", "--not", "--tcp-flags", "RST"),
)
LINES_MAX = 10_000  # of flows; the story makes about fifty
ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


async def tell(console: Console, *, prefix: str = "dfl") -> bool:
    """Tell the whole story; True if every step did what it should. Needs root.

    Raises EnvironmentFailure if the machine cannot do it. Removes everything at the end, also when it is cancelled.
    """
    try:
        return await _tell(console, prefix)
    except BaseExceptionGroup as group:
        raise first_cause(group) from None


async def _tell(console: Console, prefix: str) -> bool:
    console.print(Rule("[bold]Deflector: the Star Wars story[/bold]", align="left"))
    good = True
    async with AsyncExitStack() as stack:
        with _stage(console, "Galaxy", "2 deathstars behind a service, a tiefighter, an xwing"):
            made = stack.enter_context(galaxy(star_wars(), prefix=prefix))
        with _stage(console, "Node", ", ".join(f"{name} {version}" for name, version in versions().items())):
            node = await stack.enter_async_context(running(made))
        flows = await stack.enter_async_context(_observing(node, console.is_terminal))
        _say_how_flows_are_seen(console, made)
        narrator = Narrator(console, made, node, flows)
        for number, chapter in enumerate(STORY, 1):
            good = await narrator.chapter(number, chapter) and good
    console.print()
    console.print(Text("✓ Galaxy and node are removed", "green"))
    words = "Everything was as it should be." if good else "Not everything was as it should be: see ✗ above."
    console.print(Text(words, "bold green" if good else "bold red"))
    return good


@contextmanager
def _stage(console: Console, title: str, words: str) -> Iterator[None]:
    """A step of the set-up: a spinner while it runs, a line with its time when it is done."""
    begun = time.monotonic()
    with console.status(f"{title}: {words}"):
        yield
    took = f"{time.monotonic() - begun:.1f} s"
    console.print(Text.assemble(("✓ ", "green"), (f"{title:<8}", "bold"), words, (f"  {took}", "dim")), soft_wrap=True)


class FlowLines:
    """Lines of `deflector observe -f` as they come; bounded."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._news = asyncio.Event()

    async def read(self, stream: asyncio.StreamReader) -> None:
        while (line := await stream.readline()) and len(self.lines) < LINES_MAX:
            self.lines.append(line.decode("utf-8", "replace").rstrip())
            self._news.set()

    async def wait(self, settled: Callable[[], bool], timeout: float) -> None:
        """Until the condition holds, at most so many seconds."""
        try:
            async with asyncio.timeout(timeout):
                while not settled():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            pass  # what is missing will be said


def _observe(galaxy: Galaxy) -> list[str]:
    """Verdicts and requests; without the trace of every packet, which is observe's default."""
    return ["observe", "-f", "--run-dir", str(galaxy.run_dir), "--print-policy-names", *FLOW_FILTERS]


def _say_how_flows_are_seen(console: Console, galaxy: Galaxy) -> None:
    console.print(Text("The flow lines below the commands come from", "dim"))
    console.print(Text(f"  deflector {shlex.join(_observe(galaxy))}", "dim"), soft_wrap=True)


@asynccontextmanager
async def _observing(node: Node, colour: bool) -> AsyncIterator[FlowLines]:
    argv = [*_observe(node.galaxy), "--last", "100", "--color", "always" if colour else "never"]
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "TERM", str(DEFLECTOR), *argv),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout
    flows = FlowLines()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flows.read(process.stdout))
        try:
            yield flows
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


class Narrator:
    """Tells one chapter after the other and remembers nothing but its tools."""

    def __init__(self, console: Console, galaxy: Galaxy, node: Node, flows: FlowLines) -> None:
        self._console, self._galaxy, self._node, self._flows = console, galaxy, node, flows

    async def chapter(self, number: int, chapter: Chapter) -> bool:
        """Put its policy in force and make its moves; True if all came as it should."""
        self._console.print()
        self._console.print(Rule(f"[bold]{number}. {chapter.title}[/bold]", align="left"))
        self._say(chapter.text)
        if not await self._set_policy(chapter.policy):
            return False
        results = [await self._move(move) for move in chapter.moves]
        return all(results)

    async def _set_policy(self, name: str) -> bool:
        folder = self._galaxy.manifests
        if not name and not folder.policies():
            return True
        if name:
            text = (EXAMPLES / name).read_text()
            self._policy(text)
            self._command("", f"cp examples/{name} {folder.root / POLICY_FILE}")
            folder.write(POLICY_FILE, text)
        else:
            self._command("", f"rm {folder.root / POLICY_FILE}")
            folder.remove(POLICY_FILE)
        try:
            await self._node.enforced()
        except NotEnforced as error:
            self._verdict(str(error), good=False)
            return False
        self._verdict("enforced, says deflector status", good=True)
        return True

    async def _move(self, move: Move) -> bool:
        self._console.print()
        self._command(move.ship, move.curl)
        mark = len(self._flows.lines)
        output = await self._run(move)
        for line in output.rstrip().splitlines():
            self._console.print(Text(line), soft_wrap=True)
        wanted = [re.compile(pattern) for pattern in move.flows]
        await self._flows.wait(lambda: not _missing(wanted, self._flows.lines[mark:]), FLOW_PATIENCE)
        for line in self._flows.lines[mark:]:
            self._flow(line)
        problems = [] if move.output in output else [f"expected {move.output!r} in its output"]
        problems += [f"expected a flow like {pattern}" for pattern in _missing(wanted, self._flows.lines[mark:])]
        self._verdict(move.claim if not problems else f"{move.claim}? {'; '.join(problems)}", good=not problems)
        return not problems

    async def _run(self, move: Move) -> str:
        """Run the command in the ship. curl finds the service by the galaxy's .curlrc, which plays cluster DNS."""
        process = await asyncio.create_subprocess_exec(
            *netns.inside(self._galaxy.namespace(move.ship), shlex.split(move.curl)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, "CURL_HOME": str(self._galaxy.folder / "curl")},
        )
        try:
            async with asyncio.timeout(COMMAND_PATIENCE):
                output, _ = await process.communicate()
        except BaseException:
            process.kill()
            await process.wait()
            raise
        return output.decode("utf-8", "replace").replace("\r", "")

    def _policy(self, text: str) -> None:
        """The YAML without its comment, which the chapter's words replace."""
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        if self._console.is_terminal:
            policy = Syntax("\n".join(lines), "yaml", theme="ansi_dark", background_color="default")
            self._console.print(Padding(policy, (0, 2)))
        else:
            self._console.print("\n".join(f"  {line}" for line in lines), markup=False, highlight=False)

    def _say(self, text: str) -> None:
        self._console.print(Text(text))

    def _command(self, ship: str, line: str) -> None:
        self._console.print(Text.assemble((f"{ship}$ ", "bold cyan"), (line, "bold")), soft_wrap=True)

    def _flow(self, line: str) -> None:
        """A line of observe below the command; on a terminal a long one goes on under an indent of its own."""
        if not self._console.is_terminal:
            self._console.print(Text(f"    {line}"), soft_wrap=True)
            return
        for number, part in enumerate(Text.from_ansi(line).wrap(self._console, max(20, self._console.width - 8))):
            part.rstrip()
            self._console.print(Padding(part, (0, 0, 0, 8 if number else 4), expand=False))

    def _verdict(self, words: str, *, good: bool) -> None:
        self._console.print(Text(f"{'✓' if good else '✗'} {words}", "green" if good else "bold red"), soft_wrap=True)


def _missing(patterns: list[re.Pattern[str]], lines: list[str]) -> list[str]:
    """The patterns that no line has, colours apart."""
    plain = [ESCAPES.sub("", line) for line in lines]
    return [pattern.pattern for pattern in patterns if not any(pattern.search(line) for line in plain)]

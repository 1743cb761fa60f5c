"""From a folder of manifests to what is enforced: the real watcher and compiler; only effects are remembered."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.node.policy_loop import PolicyLoop
from agent.node.ports import ProxyPorts
from agent.node.regenerate import Books, Regenerator
from agent.supervise import Tasks
from policies.compiling.compiler import Compiled, Compiler
from policies.compiling.identity import IdentityAllocator
from policies.compiling.slots import SlotBook
from policies.watch import watch_folder
from policies.world import World
from tests.fakes.effects import Effects, FakeKernel, FakeProxies
from tests.policies.make import manifest, peers, pod, policy, to_ports

PATIENCE = 10.0  # seconds until something that must come has come
LAND = to_ports("80", http=[{"method": "POST", "path": "/land"}])
DOCK = to_ports("80", http=[{"method": "POST", "path": "/dock"}])
EMPIRE = peers({"org": "empire"})


@dataclass
class Agent:
    """The loop over a folder."""

    folder: Path
    effects: Effects = field(default_factory=Effects)

    def __post_init__(self) -> None:
        self.compiler = Compiler(IdentityAllocator())
        self.compiled = 0  # how often
        regenerator = Regenerator(
            FakeProxies(self.effects),
            FakeKernel(self.effects),
            Books(SlotBook(), ProxyPorts(14000, 14099)),
            save=lambda books: None,
            is_free=lambda protocol, port: True,
            now=lambda: 0.0,
            ack_timeout=5.0,
        )
        self.loop = PolicyLoop(regenerator, self.compile, lambda world, node: None)

    def compile(self, world: World, revision: int) -> Compiled:
        self.compiled += 1
        local = {key: number for number, key in enumerate(sorted(world.pods), 10)}
        return self.compiler.compile(world, local, ("192.0.2.1",), revision)

    def save(self, name: str, text: str) -> None:
        """As an editor does it: written aside, then renamed."""
        aside = self.folder / f".{name}.new"
        aside.write_text(text)
        os.replace(aside, self.folder / name)

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition():
                    await asyncio.sleep(0.005)
        except TimeoutError:
            pytest.fail(f"{what}: not within {PATIENCE} s; problems: {self.loop.problems}")

    async def enforced(self, name: str) -> None:
        """Wait until the file as it is on disk is enforced."""
        path = self.folder / name
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        await self.until(
            lambda: not self.loop.pending and self.loop.enforced.files.get(str(path)) == digest, f"{name} enforced"
        )

    @property
    def paths(self) -> set[str]:
        """The paths that some active slot allows."""
        return {rule.path for slot in self.loop.enforced.node.slots for rule in slot.rule_set.http}


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    made = Agent(tmp_path)
    crew = (pod("deathstar", "10.0.0.1", **{"class": "deathstar"}), pod("tiefighter", "10.0.0.2", org="empire"))
    made.save("pods.yaml", manifest(*crew))
    made.save("rule1.yaml", rule1(LAND))
    tasks = Tasks()
    tasks.start("watch", made.loop.watch(watch_folder(tmp_path, 10)))
    tasks.start("run", made.loop.run())
    await made.enforced("rule1.yaml")
    yield made
    await tasks.stop()


def rule1(ports: dict[str, object]) -> str:
    ingress = [{"fromEndpoints": EMPIRE, "toPorts": [ports]}]
    return manifest(policy("rule1", subject={"class": "deathstar"}, ingress=ingress))


async def test_what_is_there_at_the_start_is_enforced_as_one_state(agent: Agent) -> None:
    assert agent.loop.enforced.revision == 1
    assert agent.paths == {"/land"}
    assert agent.loop.problems == []


async def test_an_edit_is_enforced_on_the_same_slot(agent: Agent) -> None:
    agent.effects.take()
    agent.save("rule1.yaml", rule1(DOCK))
    await agent.enforced("rule1.yaml")
    assert agent.paths == {"/dock"}
    assert len(agent.effects.take()) == 1, "the filter, and nothing else"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kind: [", "SyntaxError"),
        (rule1({**LAND, "rules": {"http": [{"path": "("}]}}), "BadRegex"),
        (rule1({**LAND, "rulez": {}}), "UnknownField"),
    ],
    ids=["syntax", "regex", "field"],
)
async def test_bad_input_is_reported_and_loses_nothing(agent: Agent, text: str, words: str) -> None:
    before = dict(agent.effects.redirects)
    agent.save("rule1.yaml", text)
    await agent.until(lambda: any(words in line for line in agent.loop.problems), words)
    (line,) = agent.loop.problems
    assert "rule1.yaml:" in line
    await agent.until(lambda: not agent.loop.pending, "settled")
    assert agent.paths == {"/land"}
    assert agent.effects.redirects == before
    agent.save("rule1.yaml", rule1(DOCK))
    await agent.enforced("rule1.yaml")
    assert agent.loop.problems == []


async def test_an_effect_that_fails_is_a_problem_until_it_succeeds(agent: Agent) -> None:
    agent.effects.kernel_fails = True
    agent.save("rule1.yaml", rule1(DOCK))
    await agent.until(lambda: "the map is full" in agent.loop.problems, "the failure is told")
    assert agent.loop.pending
    agent.effects.kernel_fails = False
    agent.loop.wake()
    await agent.enforced("rule1.yaml")
    assert agent.loop.problems == []


async def test_a_link_event_that_changes_nothing_is_no_revision_and_no_line(
    agent: Agent, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "deflector")
    compiled = agent.compiled
    for _ in range(3):
        agent.loop.wake()
    await agent.until(lambda: agent.compiled > compiled and not agent.loop.pending, "it has looked again")
    assert agent.loop.enforced.revision == 1
    assert caplog.messages == []
    agent.save("rule1.yaml", rule1(DOCK))
    await agent.enforced("rule1.yaml")
    assert caplog.messages == ["revision 2 is enforced: 1 slots"]


async def test_a_comment_is_enforced_without_a_new_revision(agent: Agent) -> None:
    agent.save("rule1.yaml", rule1(LAND) + "# as discussed\n")
    await agent.enforced("rule1.yaml")
    assert agent.loop.enforced.revision == 1


async def test_what_a_late_proxy_owes_is_finished_when_it_answers(agent: Agent) -> None:
    (slot,) = set(agent.effects.redirects.values())
    agent.effects.silent = {slot}
    agent.save("rule1.yaml", rule1(DOCK))
    await agent.until(lambda: any("no proxy has confirmed" in line for line in agent.loop.problems), "it is late")
    assert agent.loop.pending
    agent.effects.silent = set()
    agent.loop.wake()
    await agent.enforced("rule1.yaml")
    assert agent.loop.problems == []


async def test_a_removed_policy_ends_its_redirects(agent: Agent) -> None:
    (agent.folder / "rule1.yaml").unlink()
    await agent.until(lambda: not agent.effects.redirects and not agent.loop.pending, "redirects end")
    assert str(agent.folder / "rule1.yaml") not in agent.loop.enforced.files


async def test_nothing_is_computed_from_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """An earlier agent's policy is in force: an empty world would take it out."""
    made = Agent(tmp_path)
    tasks = Tasks()
    tasks.start("watch", made.loop.watch(watch_folder(tmp_path, 10, had_files=True)))
    tasks.start("run", made.loop.run())
    await made.until(lambda: bool(made.loop.problems), "the problem is told")
    assert "is its mount gone?" in made.loop.problems[0]
    assert made.loop.enforced.revision == 0
    assert not made.effects.take()
    made.save("pods.yaml", manifest(pod("deathstar", "10.0.0.1", **{"class": "deathstar"})))
    await made.enforced("pods.yaml")
    await tasks.stop()

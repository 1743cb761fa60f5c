"""Kafka brokers of a galaxy, each a process inside its pod. Touches its own processes only."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field

from conformance import netns
from conformance.errand import KAFKA_PORT
from conformance.errors import EnvironmentFailure

START = 10.0  # seconds a broker may take to listen


@dataclass(slots=True)
class Brokers:
    """All brokers of one galaxy. `advertised`: what each, by its pod's alias, takes for its own address."""

    advertised: dict[str, tuple[str, int]] = field(default_factory=dict)
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, alias: str, namespace: str, topics: Sequence[str]) -> None:
        """A broker with these topics in the namespace of a pod. Raises EnvironmentFailure."""
        argv = [sys.executable, "-m", "conformance.mock_broker", "--port", str(KAFKA_PORT)]
        named = [word for topic in topics for word in ("--topic", topic)]
        self._running[alias] = broker = subprocess.Popen(
            netns.inside(namespace, [*argv, *named]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the owner, who ends them in order
        )
        assert broker.stdout
        ready, _, _ = select.select([broker.stdout], [], [], START)
        words = broker.stdout.readline().split() if ready else []
        if len(words) != 2 or words[0] != b"ready":
            raise EnvironmentFailure(f"the broker of pod {alias} does not listen after {START:.0f} s")
        self.advertised[alias] = ("127.0.0.1", int(words[1]))

    def stop(self) -> None:
        """End them. Harmless the second time."""
        for broker in self._running.values():
            broker.kill()
        for broker in self._running.values():
            broker.wait()
            if broker.stdout:
                broker.stdout.close()
        self._running.clear()

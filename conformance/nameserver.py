"""Nameservers of a galaxy: unbound inside pods, told what to say by a zone file. Touches its own files and processes.

unbound is taken from the path, or from where setup has unpacked the Debian package: installing that starts a service.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from conformance import netns
from conformance.blueprint import DnsName, Host
from conformance.errors import EnvironmentFailure
from conformance.zone import server_text, zone_text

UNPACKED = Path(__file__).parent.parent / "build/unbound/usr/sbin/unbound"
DNS_PORT = 53
START = 5.0  # seconds until it answers
ASK_AGAIN = 0.05  # seconds
FIRST_SERIAL = 0x5EED0001  # of the zone: unlike anything else in an answer
# Of the root, type SOA: the shortest question that a server of the root zone has an answer to.
_QUESTION = bytes.fromhex("d3f1 0100 0001 0000 0000 0000 00 0006 0001")


def find_unbound() -> str:
    """The binary. Raises EnvironmentFailure."""
    found = shutil.which("unbound") or (str(UNPACKED) if os.access(UNPACKED, os.X_OK) else "")
    if not found:
        raise EnvironmentFailure("unbound is not installed: run 'make setup'")
    return found


@dataclass(slots=True)
class Nameservers:
    """All nameservers of one galaxy: they say the same."""

    folder: Path
    hosts: tuple[Host, ...]
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _serial: int = FIRST_SERIAL

    def start(self, namespace: str, names: Iterable[DnsName]) -> None:
        """Serve these names in the namespace. Raises EnvironmentFailure."""
        zone, config = self.folder / "zone", self.folder / "unbound.conf"
        zone.write_text(zone_text(names, self.hosts, self._serial))
        config.write_text(server_text(str(zone)))
        with (self.folder / "unbound.log").open("ab") as log:
            self._running[namespace] = subprocess.Popen(
                netns.inside(namespace, [find_unbound(), "-d", "-c", str(config)]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the owner, who ends them in order
            )
        self._wait(namespace)

    def rename(self, names: Iterable[DnsName]) -> None:
        """Say this from now on. Raises EnvironmentFailure."""
        self._serial += 1
        (self.folder / "zone").write_text(zone_text(names, self.hosts, self._serial))
        for namespace, server in self._running.items():
            server.send_signal(signal.SIGHUP)
            self._wait(namespace)

    def stop(self) -> None:
        """End them. Harmless the second time."""
        for server in self._running.values():
            server.kill()
        for server in self._running.values():
            server.wait()
        self._running.clear()

    def _wait(self, namespace: str) -> None:
        """Until it serves the zone as it is now."""
        deadline = time.monotonic() + START
        with netns.socket_in(namespace, socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(ASK_AGAIN)
            while time.monotonic() < deadline and self._running[namespace].poll() is None:
                try:
                    probe.sendto(_QUESTION, ("127.0.0.1", DNS_PORT))
                    if self._serial.to_bytes(4, "big") in probe.recv(512):
                        return
                except TimeoutError:
                    continue
        log = (self.folder / "unbound.log").read_text(errors="replace").strip().splitlines()
        raise EnvironmentFailure(f"the nameserver in {namespace} does not answer: {log[-1] if log else 'no word'}")

"""`deflector demo starwars`, as a user runs it."""

from __future__ import annotations

import re
import signal
import subprocess
import time

import pytest

from conformance import netns
from conformance.galaxy import ROOT
from conformance.node import DEFLECTOR

pytestmark = [pytest.mark.privileged, pytest.mark.timeout(120)]


def galaxies() -> set[str]:
    return {path.name for path in ROOT.glob("dfl-*")} | {name[: len("dfl-0000")] for name in netns.existing("dfl-")}


def test_the_story_is_told_and_every_step_did_what_it_should() -> None:
    before = galaxies()
    begun = time.monotonic()
    told = subprocess.run([DEFLECTOR, "demo", "starwars"], capture_output=True, text=True, timeout=60, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert time.monotonic() - begun < 40
    assert "\x1b" not in told.stdout
    assert told.stdout.count("✗") == 0
    for part in (
        r"Ship landed",
        r"Panic: deathstar exploded",
        r"default/xwing:\d+ \(ID:\d+\) <> .* Policy denied DROPPED \(TCP Flags: SYN\)",
        r"curl: \(28\)",
        r"Access denied",
        r"-> .* http-request FORWARDED \(HTTP/1.1 POST http://deathstar.default.svc.cluster.local/v1/request-landing\)",
        r"<- .* http-response FORWARDED \(HTTP/1.1 200 \d+ms \(POST ",
        r"-> .* http-request DROPPED \(HTTP/1.1 PUT http://deathstar.default.svc.cluster.local/v1/exhaust-port\)",
        r"<- .* http-response FORWARDED \(HTTP/1.1 403 \d+ms \(PUT ",
    ):
        assert re.search(part, told.stdout), part
    assert galaxies() <= before


def test_ctrl_c_in_the_middle_of_the_story_cleans_up() -> None:
    before = galaxies()
    story = subprocess.Popen([DEFLECTOR, "demo", "starwars"], stdout=subprocess.PIPE, text=True)
    assert story.stdout
    for line in story.stdout:
        if "Ship landed" in line:
            break
    story.send_signal(signal.SIGINT)
    assert story.wait(timeout=20) not in (0, 1)
    story.stdout.close()
    assert galaxies() <= before

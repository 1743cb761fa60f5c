"""Is this machine ready? The kernel's and the tools' answers, Envoy's, and what to do about those that are no."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from agent.errors import EnvironmentProblem
from agent.proxies.envoy import find_envoy
from bpf.features import Check, State, checks
from bpf.loader import Options

ENVOY_SECONDS = 10.0
_MARKS = {State.OK: ("OK", "green"), State.MISSING: ("!!", "bold red"), State.UNKNOWN: ("??", "yellow")}


def examine(options: Options, envoy: Path | None = None) -> list[Check]:
    """Every check, in the order in which a person should repair them."""
    return [*checks(options), _envoy(envoy)]


def require(options: Options) -> None:
    """Raise EnvironmentProblem naming all that is missing, with its remedy, before anything is changed."""
    missing = [check for check in checks(options) if check.state is State.MISSING]
    if missing:
        raise EnvironmentProblem("; ".join(f"{c.name} is missing ({c.detail}): {c.remedy}" for c in missing))


def plain(found: Sequence[Check]) -> list[dict[str, Any]]:
    """For -o json."""
    return [{"name": c.name, "state": c.state.value, "detail": c.detail, "remedy": c.remedy} for c in found]


def print_checks(found: Sequence[Check], console: Console) -> None:
    """A line each, and what to do under those that are not OK."""
    width = max(len(check.name) for check in found)
    for check in found:
        mark, colour = _MARKS[check.state]
        console.print(Text.assemble((mark, colour), f"  {check.name:<{width}}  ", (check.detail, "dim")))
        if check.state is not State.OK and check.remedy:
            console.print(Text.assemble(" " * (width + 6), ("→ " + check.remedy, "bold")))
    bad = sum(check.state is not State.OK for check in found)
    console.print(Text("this machine is ready", "green") if not bad else Text(f"{bad} of {len(found)} not OK", "red"))


def _envoy(explicit: Path | None) -> Check:
    try:
        binary = find_envoy(explicit)
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=ENVOY_SECONDS, check=True)
    except EnvironmentProblem as problem:
        return Check("Envoy", State.MISSING, "not found", str(problem))
    except (OSError, subprocess.SubprocessError) as error:
        return Check("Envoy", State.MISSING, f"does not run: {error}", "run 'make setup', or name one with --envoy")
    version = done.stdout.partition("version:")[2].strip() or "unknown version"  # commit/version/tree/build/TLS
    return Check("Envoy", State.OK, "/".join(version.split("/")[1:2]) or version)

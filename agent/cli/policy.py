"""`deflector policy`: everything about policies that needs no kernel, one file per command."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import click

from agent.cli.root import LazyGroup


class PolicyGroup(LazyGroup):
    """Its commands: name -> (module, attribute, short help)."""

    table: ClassVar[Mapping[str, tuple[str, str, str]]] = {
        "explain": ("agent.cli.policy_explain", "explain", "Say who may talk to whom, and which rule says so."),
        "lint": ("agent.cli.policy_lint", "lint", "Find rules that are shadowed, void, or about nobody."),
        "show": ("agent.cli.policy_show", "show", "Show what is in force on a pod."),
        "usage": ("agent.cli.policy_usage", "usage", "Show which rules are used, and which nothing has used."),
        "validate": ("agent.cli.policy_validate", "validate", "Check manifests, as a node or as Cilium would."),
    }


@click.command(cls=PolicyGroup)
def policy() -> None:
    """What policies say, before and while they are enforced."""

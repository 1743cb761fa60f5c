"""Options that several commands share, so that one word means one thing everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, Final

import click

from agent.config import (
    DEFAULT_BPFFS,
    DEFAULT_CLUSTER,
    DEFAULT_RUN_DIR,
    ENFORCEMENTS,
    FQDN_ENFORCEMENTS,
    KAFKA_ROLES,
    LOCALHOSTS,
    Modes,
)
from agent.errors import EnvironmentProblem

run_dir_option = click.option(
    "--run-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_RUN_DIR,
    show_default=True,
    help="Folder of the node's sockets and state.",
)
bpffs_option = click.option(
    "--bpffs",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_BPFFS,
    show_default=True,
    help="BPF filesystem for pinned programs and maps; mounted if it is not.",
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True, help="Form of the answer."
)


def manifests_option(*, required: bool) -> Callable[[Any], Any]:
    """The folder of manifests of a command that looks at it once."""
    return click.option(
        "--manifests",
        type=click.Path(path_type=Path, exists=True, file_okay=False),
        required=required,
        help="Folder of YAML or JSON manifests.",
    )


def show_problems(problems: Iterable[object]) -> None:
    """What is wrong with the manifests, on stderr: the answer is about what a node would enforce all the same."""
    for problem in problems:
        click.echo(f"deflector: {problem}", err=True)


_MODES: Final = (
    click.option(
        "--policy-enforcement",
        "--enable-policy",
        type=click.Choice(ENFORCEMENTS),
        default=ENFORCEMENTS[0],
        show_default=True,
        help="default: a pod is open in a direction until a policy selects it there; always: closed; never: nothing is "
        "enforced.",
    ),
    click.option(
        "--allow-localhost",
        type=click.Choice(LOCALHOSTS),
        default=LOCALHOSTS[0],
        show_default=True,
        help="Whether the node itself reaches its pods past every policy (always, and auto) or needs a rule (policy).",
    ),
    click.option(
        "--cluster-name",
        default=DEFAULT_CLUSTER,
        show_default=True,
        help="Name of this cluster, in identities and in flows.",
    ),
    click.option(
        "--enable-node-selector-labels", is_flag=True, help="Let fromNodes and toNodes choose nodes by their labels."
    ),
    click.option(
        "--kafka-roles",
        type=click.Choice(KAFKA_ROLES),
        default=KAFKA_ROLES[0],
        show_default=True,
        help="What a role of Kafka rules stands for: the APIs that clients of today need (native), or Cilium's lists.",
    ),
    click.option(
        "--kafka-hide-topics/--kafka-show-topics",
        default=True,
        show_default=True,
        help="Whether a client that asks for all topics hears of those only that a rule allows.",
    ),
    click.option(
        "--identity-labels",
        "--labels",
        default="",
        metavar="PATTERNS",
        help="Which labels of pods make their identity: patterns as in Cilium, '!' before those to leave out.",
    ),
    click.option(
        "--fqdn-enforcement",
        type=click.Choice(FQDN_ENFORCEMENTS),
        default=FQDN_ENFORCEMENTS[0],
        show_default=True,
        help="What toFQDNs with HTTP rules, or at 443/TCP, hold to: learned addresses, the name (Host, SNI), or both.",
    ),
)


def modes_options(command: Callable[..., None]) -> Callable[..., None]:
    """The modes of policy, given to the command as one `modes`; refused if they cannot be."""

    @wraps(command)
    def with_modes(
        *words: Any,
        policy_enforcement: str,
        allow_localhost: str,
        cluster_name: str,
        enable_node_selector_labels: bool,
        kafka_roles: str,
        kafka_hide_topics: bool,
        identity_labels: str,
        fqdn_enforcement: str,
        **options: Any,
    ) -> None:
        modes = Modes(
            policy_enforcement,
            allow_localhost,
            cluster_name,
            enable_node_selector_labels,
            kafka_roles,
            kafka_hide_topics,
            identity_labels,
            fqdn_enforcement,
        )
        if problem := modes.problem():
            raise EnvironmentProblem(problem)
        command(*words, modes=modes, **options)

    made: Callable[..., None] = with_modes
    for option in reversed(_MODES):
        made = option(made)
    return made

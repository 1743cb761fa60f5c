"""`deflector policy show`: what is in force on a pod; from a running node, or offline from manifests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from agent.cli.options import manifests_option, modes_options, output_option, run_dir_option, show_problems
from agent.config import Modes, RunDir
from agent.errors import EnvironmentProblem


@click.command(epilog="Example: deflector policy show default/deathstar --manifests policies/")
@click.argument("pod", metavar="NAMESPACE/POD")
@manifests_option(required=False)
@run_dir_option
@modes_options
@output_option
def show(pod: str, manifests: Path | None, run_dir: Path, modes: Modes, output: str) -> None:
    """Show what is in force on a pod: its group, and per direction and port who is allowed, denied or judged, and by
    which rules of which policy. Asks the running node; with --manifests, what a node would enforce (in these
    modes of policy).
    """
    from agent.documents.policy_text import policy_text
    from agent.documents.status import fetch_policy, status_console

    namespace, _, name = pod.rpartition("/")
    if manifests is not None:
        document = _offline(manifests, (namespace or "default", name), modes)
    else:
        document = fetch_policy(RunDir(run_dir.absolute()).agent_socket, namespace or "default", name)
    if output == "json":
        click.echo(json.dumps(document))
        return
    console = status_console()
    for line in policy_text(document):
        console.print(line)


def _offline(manifests: Path, pod: tuple[str, str], modes: Modes) -> dict[str, Any]:
    from agent.documents.policy_document import policy_document
    from agent.offline import read_offline
    from policies.errors import Severity

    offline = read_offline(manifests, modes)
    document = policy_document(offline.scene.node, offline.scene.labels, *pod)
    if document is None:
        raise EnvironmentProblem(f"no running pod {pod[0]}/{pod[1]} in {manifests}")
    show_problems(problem for problem in offline.problems if problem.severity is Severity.ERROR)
    return document

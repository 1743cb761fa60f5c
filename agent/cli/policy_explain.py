"""`deflector policy explain`: may A talk to B, and which rule says so? Offline, from manifests; needs no root."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from agent.cli.asked import AskedOptions, asked_options
from agent.cli.options import manifests_option, modes_options, output_option, show_problems
from agent.config import Modes
from agent.errors import EnvironmentProblem


class PortAndProtocol(click.ParamType[tuple[int, str]]):
    """NUMBER[/PROTOCOL]; of ICMP the number is the type."""

    name = "port"
    protocols = ("TCP", "UDP", "SCTP", "ICMP", "ICMPV6")

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, str]:
        if isinstance(value, tuple):
            return value
        number, _, protocol = str(value).upper().partition("/")
        if not number.isdecimal() or int(number) > 65535 or (protocol or "TCP") not in self.protocols:
            self.fail(f"{value!r} is not NUMBER/PROTOCOL, e.g. 80/TCP, 53/UDP, 8/ICMP", param, ctx)
        return int(number), protocol or "TCP"


@click.command(
    epilog="""\b
Example: deflector policy explain --manifests DIR --from default/xwing --to default/deathstar --port 80/TCP \\
           --method PUT --path /v1/exhaust-port
         deflector policy explain --manifests DIR --from mediabot --to kube-system/kube-dns --port 53/UDP \\
           --dns api.github.com
         deflector policy explain --manifests DIR --from empire-outpost --to kafka --port 9092/TCP \\
           --kafka-api fetch --kafka-topic deathstar-plans
""",
)
@manifests_option(required=True)
@click.option("--from", "source", required=True, metavar="WHO", help="NAMESPACE/POD, an IP address, or an entity.")
@click.option("--to", "target", required=True, metavar="WHO", help="The same, or a service: its name or ClusterIP.")
@click.option("--port", type=PortAndProtocol(), required=True, metavar="PORT", help="80/TCP, 53/UDP, 8/ICMP (a type).")
@asked_options
@modes_options
@output_option
def explain(
    manifests: Path,
    source: str,
    target: str,
    port: tuple[int, str],
    asked: AskedOptions,
    modes: Modes,
    output: str,
) -> None:
    """Say whether WHO may talk to WHO, and which rule of which policy says so; if not, which rule comes nearest.

    Every pod of the folder is taken for one of this node. Exit code 0: allowed; 1: denied.
    """
    from agent.documents.policy_text import explanation_text
    from agent.documents.status import status_console
    from agent.offline import read_offline
    from policies.explaining.explain import Question
    from policies.explaining.explain import explain as answer_of
    from policies.explaining.explain_plain import to_dict
    from policies.explaining.scene import UnknownEnd
    from policies.types import Protocol

    number, protocol = port[0], Protocol[port[1]]
    request = asked.on(target, number, protocol)
    offline = read_offline(manifests, modes)
    try:
        ends = offline.scene.end(source), offline.scene.target(target, protocol, number)
    except UnknownEnd as unknown:
        raise EnvironmentProblem(f"{unknown} ({manifests})") from None
    answer = answer_of(offline.scene, Question(*ends, protocol, request))
    show_problems(offline.problems)
    if output == "json":
        click.echo(json.dumps(to_dict(answer, offline.places)))
    else:
        console = status_console()
        for line in explanation_text(answer, offline.places):
            console.print(line)
    sys.exit(0 if answer.allowed else 1)

"""The command tree: which command lives in which module. Modules are imported only when their command is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import ClassVar

import click

from agent.interrupt import quietly

# command -> (module, attribute, short help as it stands in the list)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "agent": ("agent.cli.agent", "agent", "Run a node of a cluster: policy from the API server."),
    "bpf": ("agent.cli.bpf", "bpf", "Compile and pin the kernel programs."),
    "conformance": ("agent.cli.conformance", "conformance", "Run the black-box suites on this machine."),
    "crds": ("agent.cli.crds", "crds", "Print the definitions of the cilium.io kinds."),
    "demo": ("agent.cli.demo", "demo", "Tell the Star Wars story on the real kernel and the real Envoy."),
    "dns-proxy": ("agent.cli.own_proxy", "dns_proxy", "Judge DNS queries, as an agent tells (started by it)."),
    "fqdn": ("agent.cli.fqdn", "fqdn", "List the names that pods have learned, and their addresses."),
    "kafka-proxy": (
        "agent.cli.own_proxy",
        "kafka_proxy",
        "Judge Kafka requests, as an agent tells (started by it).",
    ),
    "doctor": ("agent.cli.doctor", "doctor", "Examine this node: what it lacks, what clashes, and a probe pair."),
    "list": ("agent.cli.list", "listing", "List nodes and namespaces that the Hubble API knows of."),
    "observe": ("agent.cli.observe", "observe", "Watch flows: hubble's flags and hubble's output."),
    "operator": ("agent.cli.operator", "operator", "Keep conditions, events and garbage of a whole cluster."),
    "policy": ("agent.cli.policy", "policy", "Explain, show and lint policies."),
    "relay": ("agent.cli.relay", "relay", "Merge the flows of many nodes into one Hubble API."),
    "run": ("agent.cli.run", "run", "Run a standalone node from a folder of manifests."),
    "status": ("agent.cli.status", "status", "Show what the node enforces, or check what the machine offers."),
    "watch": ("agent.cli.list", "watch", "Watch the nodes that a Hubble API tells of."),
}


class LazyGroup(click.Group):
    """A group that lists its commands from a table and imports the one that is asked for."""

    table: ClassVar[Mapping[str, tuple[str, str, str]]] = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.table:
            return None
        module, attribute, _ = self.table[cmd_name]
        with quietly():
            command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self.table[name][2]) for name in self.list_commands(ctx)])


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="deflector", prog_name="deflector")
def commands() -> None:
    """Cilium's network policies, enforced and explained on any veth-based CNI with a stock Envoy.

    \b
    Try it:
      deflector demo starwars
      deflector run --manifests examples/starwars
      deflector observe -f
    """

"""`deflector crds`: the definitions that the operator installs, for whoever installs them by other means."""

from __future__ import annotations

import click
import yaml

from agent.interrupt import quietly


@click.command(epilog="Example: deflector crds | kubectl apply --server-side -f -")
def crds() -> None:
    """Print the definitions of the cilium.io kinds that are read and written here, as YAML."""
    with quietly():
        from agent.crds import manifests

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    click.echo(yaml.dump_all(manifests(), Dumper=Plain, sort_keys=False, width=120), nl=False)

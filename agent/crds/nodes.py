"""DeflectorNode: what a node reports of the policies that it enforces (agent.cluster.node_report). Pure."""

from __future__ import annotations

from typing import Any, Final

from agent.crds.shapes import BOOLEAN, LABELS, NUMBER, TEXT, TIME, Column, Version, definition, known, several

GROUP: Final = "deflector.io"

NODES: Final[Any] = definition(
    "DeflectorNode",
    "deflectornodes",
    ("dn",),
    "Cluster",
    (
        Version(
            "v1alpha1",
            known(
                "Which policies a node enforces; written by its agent, read by the operator.",
                status=known(
                    states=LABELS,
                    policies=NUMBER,
                    complete=BOOLEAN,
                    faults=several(known(policy=TEXT, message=TEXT)),
                    unlistedFaults=NUMBER,
                    problems=several(TEXT),
                    heldMilliseconds=NUMBER,
                    version=TEXT,
                    renewed=TIME,
                ),
            ),
            (
                Column("Policies", ".status.policies", "integer"),
                Column("Complete", ".status.complete", "boolean"),
                Column("Renewed", ".status.renewed", "date"),
                Column("Version", ".status.version"),
                Column("Problem", ".status.problems[0]", wide=True),
            ),
        ),
    ),
    group=GROUP,
)

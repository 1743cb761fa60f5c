"""A folder of manifests compiled without a node: every pod is taken for local. Reads files; needs no root.

What `deflector policy explain`, `show` and `lint` look at. Same repository, same compiler, same slots as the node's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from agent.config import Modes
from agent.errors import EnvironmentProblem
from agent.views.node_view import labels_by_identity
from policies.compiling.by_name import FqdnEnforcement
from policies.compiling.compiler import Compiler, CompilerOptions
from policies.compiling.enforcement import AllowLocalhost, Enforcement
from policies.compiling.identity import IdentityAllocator
from policies.compiling.roles import KafkaRoles
from policies.compiling.slots import SlotBook, assign
from policies.errors import PolicyError, in_order
from policies.explaining.places import Places
from policies.explaining.scene import Scene
from policies.label_filter import LabelFilter
from policies.objects import PodKey
from policies.repository import Repository
from policies.watch import read_folder
from policies.world import World

MODES: Final = Modes()
_FIRST_ENDPOINT: Final = 1


@dataclass(frozen=True, slots=True)
class Offline:
    """`files`: text by name, relative to the folder. `problems`: what a node would complain of."""

    scene: Scene
    places: Places
    files: Mapping[str, str]
    problems: tuple[PolicyError, ...]


def read_offline(folder: Path, modes: Modes = MODES) -> Offline:
    """The folder as one node with all its pods, in these modes. Raises EnvironmentProblem if it cannot be read."""
    files: dict[str, str] = {}
    repository = Repository()
    for event in read_folder(folder):
        if event.path == str(folder):
            raise EnvironmentProblem(f"{folder}: {event.error}")
        name = str(Path(event.path).relative_to(folder))
        repository.apply(replace(event, path=name))
        if event.text is not None:
            files[name] = event.text
    scene, errors = compile_offline(repository.world(), modes=modes)
    return Offline(scene, Places(files), files, in_order([*repository.problems, *errors]))


def compile_offline(
    world: World, local: Mapping[PodKey, int] | None = None, host: Sequence[str] = (), *, modes: Modes = MODES
) -> tuple[Scene, tuple[PolicyError, ...]]:
    """The world as one node, and what could not be compiled. `local`: endpoint ids of its pods, by default of all;
    `host`: the node's own addresses."""
    identities = IdentityAllocator()
    if local is None:
        pods = sorted(key for key, pod in world.pods.items() if not pod.host_network and not pod.is_over)
        local = {key: number for number, key in enumerate(pods, _FIRST_ENDPOINT)}
    compiled = Compiler(identities, compiler_options(modes)).compile(world, local, host, 1)
    node, _ = assign(compiled.node, SlotBook())
    return Scene(node, world, labels_by_identity(identities, node), modes.kafka_hide_topics), compiled.errors


def compiler_options(modes: Modes) -> CompilerOptions:
    """The modes as the compiler knows them."""
    return CompilerOptions(
        cluster=modes.cluster,
        policy_enforcement=Enforcement(modes.enforcement),
        allow_localhost=AllowLocalhost(modes.localhost),
        node_labels=modes.node_labels,
        kafka_roles=KafkaRoles(modes.kafka_roles),
        fqdn_enforcement=FqdnEnforcement(modes.fqdn_enforcement),
        label_filter=label_filter(modes),
    )


def label_filter(modes: Modes) -> LabelFilter | None:
    """Which labels make identities; None for the default. Raises EnvironmentProblem."""
    try:
        return LabelFilter(modes.identity_labels) if modes.identity_labels else None
    except ValueError as error:
        raise EnvironmentProblem(f"--identity-labels: {error}") from None

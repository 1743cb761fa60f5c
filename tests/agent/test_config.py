"""What a person can set: the words are those that the compiler knows, and names that cannot be are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import ENFORCEMENTS, KAFKA_ROLES, LOCALHOSTS, Config, Modes, RunDir
from policies.compiling.compiler import CompilerOptions
from policies.compiling.enforcement import AllowLocalhost, Enforcement
from policies.compiling.roles import KafkaRoles


def config(modes: Modes) -> Config:
    return Config(Path("/m"), RunDir(Path("/run/d")), Path("/sys/fs/bpf"), "kind-worker", modes)


def test_the_modes_are_those_of_the_compiler_and_begin_like_it() -> None:
    assert tuple(mode.value for mode in Enforcement) == ENFORCEMENTS
    assert tuple(mode.value for mode in AllowLocalhost) == LOCALHOSTS
    assert tuple(mode.value for mode in KafkaRoles) == KAFKA_ROLES
    compiler, modes = CompilerOptions(), Modes()
    assert (modes.enforcement, modes.localhost) == (compiler.policy_enforcement, compiler.allow_localhost)
    assert (modes.cluster, modes.node_labels) == (compiler.cluster, compiler.node_labels)
    assert modes.kafka_roles == compiler.kafka_roles


@pytest.mark.parametrize("name", ["default", "a", "kind-2", "x" * 32])
def test_a_cluster_has_a_name(name: str) -> None:
    assert Modes(cluster=name).problem() is None


@pytest.mark.parametrize("name", ["", "-a", "a-", "Kind", "a.b", "x" * 33])
def test_what_is_no_cluster_name_is_refused(name: str) -> None:
    assert "is no cluster name" in str(Modes(cluster=name).problem())


def test_flows_name_the_cluster_unless_it_is_the_default_one() -> None:
    assert config(Modes()).flow_node_name == "kind-worker"
    assert config(Modes(cluster="mars")).flow_node_name == "mars/kind-worker"

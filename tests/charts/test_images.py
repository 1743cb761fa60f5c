"""The recipe of the image, read by another parser: what is in it, what is pinned, and who it runs as."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from dockerfile_parse import DockerfileParser

from tests.charts.chart import CHART, ROOT, containers

FOLDER = ROOT / "charts/images/deflector"
COMPILERS = ("bpfcc", "linux-headers", "gcc", "clang", "python3-venv")


@dataclass
class Stage:
    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def values(self, instruction: str) -> Iterator[str]:
        return (value for name, value in self.steps if name == instruction)


@pytest.fixture(scope="module")
def stages() -> list[Stage]:
    found: list[Stage] = []
    for step in DockerfileParser(path=str(FOLDER / "Dockerfile")).structure:
        if step["instruction"] == "FROM":
            base, *named = step["value"].split(" AS ")
            found.append(Stage(base, named[0] if named else "final"))
        elif found and step["instruction"] != "COMMENT":
            found[-1].steps.append((step["instruction"], step["value"]))
    return found


def test_every_stage_begins_with_the_base_that_one_names(stages: list[Stage]) -> None:
    known = {"${BASE}"}
    for stage in stages:
        assert stage.base in known, stage.base
        known.add(stage.name)
    text = (FOLDER / "Dockerfile").read_text()
    assert text.index("ARG BASE=") < text.index("FROM ")
    assert "SOURCE_DATE_EPOCH" in text


def test_what_runs_is_nobody_and_has_no_compiler(stages: list[Stage]) -> None:
    final = stages[-1]
    assert list(final.values("USER")) == ["65532:65532"]
    installed = " ".join(final.values("RUN"))
    assert not [name for name in COMPILERS if name in installed]
    assert "nftables" in installed


def test_the_user_of_the_chart_is_that_of_the_image(stages: list[Stage]) -> None:
    (user,) = stages[-1].values("USER")
    for name, container in containers().items():
        as_root = container["securityContext"].get("runAsUser") == 0
        assert as_root or f"{65532}:{65532}" == user, name


def test_every_package_is_copied_and_nothing_else(stages: list[Stage]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    (python,) = [stage for stage in stages if stage.name == "python"]
    copied = {word for value in python.values("COPY") for word in value.split()[:-1]}
    assert copied == packages | {"pyproject.toml", "constraints.txt", "README.md", "LICENSE"}
    sent = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    wanted = {word for stage in stages for v in stage.values("COPY") if "--from" not in v for word in v.split()[:-1]}
    assert {line[1:] for line in sent if line.startswith("!")} == wanted
    assert sent[0] == "*"


def test_python_packages_are_those_that_were_tested(stages: list[Stage]) -> None:
    (python,) = [stage for stage in stages if stage.name == "python"]
    assert any("PIP_CONSTRAINT=/opt/deflector/app/constraints.txt" in value for value in python.values("ENV"))
    assert "setuptools==" in (ROOT / "constraints.txt").read_text(), "what builds is pinned as well"


def test_the_programs_are_where_the_loader_looks(stages: list[Stage]) -> None:
    from bpf.loader import Options

    assert f"/out {Options().cache_dir}" in " ".join(stages[-1].values("COPY"))
    for path in (Path("charts/images"), CHART.relative_to(ROOT)):
        assert (ROOT / path).is_dir()

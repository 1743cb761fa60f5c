"""Measured figures as a document and as a table. Touches the one file it is told.

The document is `{name: {"value", "unit", "target", "better"}}`; a run of one benchmark replaces its own figures and
leaves the others as they were.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from benchmarks.figures import BY_NAME, FIGURES, Figure

Readings = Mapping[str, float]  # figure -> value, in the figure's unit
Document = dict[str, dict[str, Any]]

DIGITS = 4  # significant digits that leave: the machine's noise is larger


def document(readings: Readings) -> Document:
    """The figures that were measured, in the table's order. Raises KeyError for a name that is no figure's."""
    unknown = set(readings) - set(BY_NAME)
    if unknown:
        raise KeyError(f"no such figure: {', '.join(sorted(unknown))}")
    return {f.name: _entry(f, readings[f.name]) for f in FIGURES if f.name in readings}


def _entry(figure: Figure, value: float) -> dict[str, Any]:
    return {"value": rounded(value), "unit": figure.unit, "target": figure.target, "better": figure.better}


def merged(before: Document, now: Document) -> Document:
    """`before` with all figures of the benchmarks in `now` replaced; figures that no longer exist go."""
    replaced = {BY_NAME[name].benchmark for name in now}
    kept = {name: e for name, e in before.items() if name in BY_NAME and BY_NAME[name].benchmark not in replaced}
    both = {**kept, **now}
    return {figure.name: both[figure.name] for figure in FIGURES if figure.name in both}


def read(path: Path) -> Document:
    """The document in the file; an absent or unreadable one is empty, for it can be measured again."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(path: Path, content: Document) -> None:
    """Replace the file as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(content, indent=2) + "\n")
    os.replace(aside, path)


def table(readings: Readings) -> Table:
    """The readings with their targets, one section per benchmark."""
    made = Table("FIGURE", "", "UNIT", "TARGET", "", box=None, pad_edge=False, header_style="bold")
    made.columns[1].justify = made.columns[3].justify = "right"
    before = ""
    for figure in FIGURES:
        if figure.name not in readings:
            continue
        if before not in ("", figure.benchmark):
            made.add_row()
        before = figure.benchmark
        made.add_row(*_cells(figure, readings[figure.name]))
    return made


def _cells(figure: Figure, value: float) -> list[Text]:
    met = figure.is_met(value)
    sign, style = {None: ("", ""), True: ("met", "green"), False: ("missed", "bold red")}[met]
    bound = "" if figure.target is None else f"{'≤' if figure.better == 'lower' else '≥'} {plain(figure.target)}"
    name = Text(figure.name, style="" if figure.target is None else "bold")
    return [
        name,
        Text(plain(rounded(value)), style=style),
        Text(figure.unit, style="dim"),
        Text(bound),
        Text(sign, style),
    ]


def rounded(value: float) -> float:
    """To DIGITS significant digits; whole numbers above that stay whole."""
    if value == 0 or not math.isfinite(value):
        return value
    places = DIGITS - 1 - math.floor(math.log10(abs(value)))
    return round(value, max(0, places))


def plain(value: float) -> str:
    """1234567.0 -> 1,234,567; 0.8500 -> 0.85."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:g}"

"""docs/metrics.md names every metric that there is, with its type and labels (`--goldens` rewrites its tables)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.agent import metric_tables

DOCUMENT = Path(__file__).parents[2] / "docs/metrics.md"


async def test_the_tables_are_what_is_exposed(tmp_path: Path, golden: Callable[[Path, str], None]) -> None:
    tables = {
        "hubble": metric_tables.table(metric_tables.hubble(), "configured as"),
        "node": metric_tables.table(await metric_tables.node(tmp_path), "meaning"),
        "relay": metric_tables.table(metric_tables.relay(), "meaning"),
        "operator": metric_tables.table(metric_tables.operator(), "meaning"),
    }
    text = DOCUMENT.read_text()
    for name, table in tables.items():
        text, count = re.subn(
            rf"(<!-- table: {name} -->\n).*?(<!-- end -->)", lambda m, t=table: m[1] + t + m[2], text, flags=re.S
        )
        assert count == 1, f"{DOCUMENT} has no place for the table {name}"
    golden(DOCUMENT, text)

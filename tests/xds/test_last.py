"""What a proxy was told last survives it; what is damaged is said, in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from policies.ir import FqdnSelector, Listening
from tests.xds.test_l7 import DNS, KAFKA
from xds import last
from xds.client import Told
from xds.l7 import DnsNode
from xds.options import DnsSettings, KafkaSettings

TOLD = Told(
    (Listening(DNS, 10_001), Listening(KAFKA, 10_002)),
    DnsNode(DnsSettings("nameError", hold_limit=0.5), (FqdnSelector("", "*.x.io."),)),
    KafkaSettings(hide_topics=False),
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "dns-proxy.told"
    assert last.load(path) == Told()
    last.save(path, TOLD)
    assert last.load(path) == TOLD
    last.save(path, Told())
    assert last.load(path) == Told()


@pytest.mark.parametrize("size", [1, 10, 100])
def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path, size: int) -> None:
    path = tmp_path / "dns-proxy.told"
    last.save(path, TOLD)
    path.write_bytes(path.read_bytes()[:-size])
    with pytest.raises(ValueError, match=r"dns-proxy\.told cannot be read") as caught:
        last.load(path)
    assert "\n" not in str(caught.value)

"""What the proxy is told, and keeps on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from l7proxy.dns.configuration import Configuration, ConfigurationError, NameRules, Options, Slot, decode, encode
from l7proxy.dns.disk import ConfigurationFile
from policies.types import Protocol

FULL = Configuration(
    "42",
    (
        Slot("b", 15354, Protocol.TCP, (NameRules("r", ("a.org",), ("*.x.io",), frozenset({1000, 2})),), 4711, 53, 53),
        Slot("a", 15353, Protocol.UDP, (NameRules("all"),)),
        Slot("c", 15355, Protocol.UDP),
    ),
    Options("nameError", 5.0, 0.5, True),
)


def by_port(configuration: Configuration) -> list[Slot]:
    return sorted(configuration.slots, key=lambda slot: slot.proxy_port)


def test_what_is_stored_is_loaded(tmp_path: Path) -> None:
    stored = ConfigurationFile(tmp_path / "dns.json")
    assert stored.load() is None
    stored.save(FULL)
    loaded = stored.load()
    assert loaded is not None
    assert (loaded.revision, loaded.options, by_port(loaded)) == (FULL.revision, FULL.options, by_port(FULL))


def test_the_same_is_the_same_text() -> None:
    assert encode(FULL) == encode(Configuration("42", FULL.slots[::-1], FULL.options)) == encode(decode(encode(FULL)))


@pytest.mark.parametrize(
    ("slots", "options", "why"),
    [
        ((Slot("a", 1, Protocol.UDP), Slot("b", 1, Protocol.UDP)), Options(), "share"),
        ((Slot("a", 1, Protocol.SCTP),), Options(), "SCTP"),
        ((Slot("a", 0, Protocol.UDP),), Options(), "ports"),
        ((Slot("a", 1, Protocol.UDP, first_port=2, last_port=1),), Options(), "ports"),
        ((), Options(rejection="silence"), "rejection"),
        ((), Options(hold_limit=0), "limit"),
    ],
)
def test_what_makes_no_sense_is_refused(slots: tuple[Slot, ...], options: Options, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Configuration("1", slots, options)


def test_a_damaged_file_is_one_line_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "dns.json"
    path.write_text(encode(FULL)[:50])
    with pytest.raises(ConfigurationError, match=r"dns\.json is not a configuration") as caught:
        ConfigurationFile(path).load()
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.sampled_from(["format", "slots", "options", "revision", "name"]), x),
    )
)
def test_any_json_is_a_configuration_or_the_error(stored: object) -> None:  # fmt: skip
    for content in (
        stored,
        {"format": 1, "revision": "1", "slots": stored, "options": {}},
        {"format": 1, "revision": "1", "slots": [], "options": stored},
    ):
        try:
            decode(json.dumps(content))
        except ConfigurationError:
            pass

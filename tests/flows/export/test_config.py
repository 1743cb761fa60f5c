"""Exporters as Hubble's users configure them."""

from __future__ import annotations

import pytest

from flows.export.config import ExportConfigError, FileSpec, parse_file, static

FILE = FileSpec("/tmp/events.log")
ENTRY = {"name": "test002", "filePath": "/var/run/test002.log"}


def test_the_static_exporter_takes_filters_with_spaces_between_them() -> None:
    spec = static(
        FILE,
        allow='{"source_pod":["default/"]} {"verdict":["DROPPED"]}',
        deny='{"http_method":["GET"],"event_type":[{"type":129}]}',
        mask="time,verdict source.pod_name",
    )
    request = spec.request()
    assert len(request.whitelist) == 2
    assert request.blacklist[0].http_method == ["GET"]
    assert set(request.field_mask.paths) == {"time", "verdict", "source.pod_name"}
    assert request.follow


def test_a_file_names_several_and_fills_in_hubbles_defaults() -> None:
    document = {
        "flowLogs": [
            {**ENTRY, "fieldMask": ["verdict"], "includeFilters": [{"source_pod": ["default/"]}]},
            {
                "name": "a",
                "filePath": "stdout",
                "fileMaxSizeMb": 1,
                "fileMaxBackups": 2,
                "fileCompress": True,
                "fieldAggregate": ["source.namespace"],
                "aggregationInterval": "1m30s",
                "end": "2023-10-09T23:59:59-07:00",
            },
        ]
    }
    first, second = parse_file(document)
    assert (first.name, first.file) == ("a", FileSpec("stdout", 1 << 20, 2, True))
    assert first.aggregates
    assert first.interval == 90
    assert first.end == 1_696_921_199_000_000_000
    assert second.file == FileSpec("/var/run/test002.log", 10 << 20, 5, False)
    assert not second.aggregates
    assert parse_file(None) == ()


def test_the_order_of_filters_and_paths_makes_no_other_exporter() -> None:
    one = {**ENTRY, "fieldMask": ["time", "verdict"], "includeFilters": [{"uuid": ["1"]}, {"uuid": ["2"]}]}
    other = {**ENTRY, "fieldMask": ["verdict", "time"], "includeFilters": [{"uuid": ["2"]}, {"uuid": ["1"]}]}
    assert parse_file({"flowLogs": [one]}) == parse_file({"flowLogs": [other]})


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"name": ""}, r"flowLogs\[0\]: name and filePath are required"),
        ({"filepath": "x"}, r"flowLogs\[0\]: unknown field filepath"),
        ({"fieldMask": ["no.such"]}, "invalid fieldmask"),
        ({"fieldMask": "time"}, "fieldMask: must be of type list"),
        ({"includeFilters": [{"nothing": 1}]}, r"includeFilters\[0\]: no flow filter"),
        ({"includeFilters": [{"source_ip": ["nowhere"]}]}, "nowhere"),
        ({"aggregationInterval": "soon"}, 'aggregationInterval: "soon" is no duration'),
        ({"end": "tomorrow"}, 'end: "tomorrow" is no RFC 3339 time'),
        ({"end": "2023-10-09T23:59:59"}, "end: must say its time zone"),
        ({"fileMaxSizeMb": -1}, "not negative"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ExportConfigError, match=complaint):
        parse_file({"flowLogs": [{**ENTRY, **change}]})


def test_names_and_files_are_unique() -> None:
    with pytest.raises(ExportConfigError, match="two flowLogs have the filePath"):
        parse_file({"flowLogs": [ENTRY, {**ENTRY, "name": "other"}]})
    with pytest.raises(ExportConfigError, match="allowlist: must be JSON filters with spaces"):
        static(FILE, allow='{"uuid":["1"]},{"uuid":["2"]}')

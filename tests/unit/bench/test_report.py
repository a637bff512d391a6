"""The table, for people and for programs."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.bench.__main__ import BENCHMARKS
from tests.bench.framework import Measurement, compare, failed, judge
from tests.bench.report import (
    FIELDS,
    format_value,
    merge_rows,
    read_machine,
    read_results,
    render_document,
    render_table,
    write_results,
)

ROWS = [
    compare("round trip", 4.0, 100.0, "ms", times=20, note="in turn"),
    judge("memory", 90.0, "KiB", bar=80.0),
    failed("jobs", "at least 300 jobs/s", "it hung"),
]


def test_table_when_rows_are_of_all_kinds_shows_each_in_its_columns() -> None:
    lines = render_table(ROWS).splitlines()

    assert lines[0].split() == ["what", "ours", "peer", "ratio", "bar", "met"]
    assert lines[1].split() == [
        "round",
        "trip",
        "4.00",
        "ms",
        "100",
        "ms",
        "25.0",
        "at",
        "least",
        "20",
        "times",
        "faster",
        "yes",
    ]
    assert lines[2].endswith("NO")
    assert lines[3].split()[1:4] == ["-", "-", "-"]


def test_results_when_written_hold_the_seven_fields_and_come_back_with_their_notes(tmp_path: Path) -> None:
    write_results(ROWS, tmp_path)

    table = json.loads((tmp_path / "latest.json").read_text())
    assert [tuple(row) for row in table] == [FIELDS] * 3
    assert read_results(tmp_path) == ROWS


def test_results_when_there_are_none_yet_are_empty(tmp_path: Path) -> None:
    assert read_results(tmp_path) == []


def test_merge_when_one_row_is_measured_anew_keeps_the_others_in_their_order() -> None:
    fresh = judge("memory", 70.0, "KiB", bar=80.0)

    merged = merge_rows(ROWS, [fresh], ["round trip", "memory", "jobs"])

    assert merged == [ROWS[0], fresh, ROWS[2]]


def test_merge_when_no_benchmark_has_a_row_any_more_drops_it() -> None:
    assert merge_rows(ROWS, [], ["memory"]) == [ROWS[1]]


def test_document_when_rendered_names_machine_date_and_what_limits_a_row() -> None:
    text = render_document(ROWS, "4 cores", datetime(2026, 11, 23, 7, 5, tzinfo=UTC))

    assert "Measured 2026-11-23 07:05 UTC on: 4 cores." in text
    assert "| round trip | 4.00 ms | 100 ms | 25.0 | at least 20 times faster | yes |" in text
    assert "- **jobs**: it hung." in text


def test_machine_when_read_names_cores_memory_kernel_and_versions() -> None:
    words = read_machine()

    assert all(part in words for part in ("cores", "GiB", "kernel", "Python", "SQLite", "litestar"))


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (0.128, "0.13 s"), (12.34, "12.3 s"), (1234.5, "1234 s")])
def test_value_when_formatted_has_three_digits_that_mean_something(value: float | None, text: str) -> None:
    assert format_value(value, "s") == text


def test_benchmarks_when_listed_have_names_and_rows_of_their_own() -> None:
    rows = [name for benchmark in BENCHMARKS for name, _ in benchmark.bars]

    assert len(set(rows)) == len(rows)
    assert len({benchmark.name for benchmark in BENCHMARKS}) == len(BENCHMARKS)
    assert all(isinstance(benchmark.limit_seconds, (int, float)) for benchmark in BENCHMARKS)


def test_measurement_when_decoded_is_what_was_encoded() -> None:
    assert Measurement(**{name: getattr(ROWS[0], name) for name in (*FIELDS, "note")}) == ROWS[0]

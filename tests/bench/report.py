"""The one table, and where it is kept: tests/bench/results/latest.json and docs/benchmarks.md."""

from __future__ import annotations

import math
import os
import platform
import sqlite3
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec

from tests.bench.framework import Measurement

ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(__file__).resolve().parent / "results"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
FIELDS = ("name", "ours", "peer", "unit", "ratio", "bar", "met")
HEADINGS = ("what", "ours", "peer", "ratio", "bar", "met")
LIBRARIES = ("litestar", "uvicorn", "websockets", "sqlalchemy", "asyncpg", "msgspec", "cryptography")

INTRODUCTION = """\
# Benchmarks

`make bench` measures what is promised, on this machine, against real processes: the controller is `wcpd run` as it is
installed, agents are the real link and executor (over hosts in memory where there are many, on real Debian nodes where
the host counts), peers are measured in the same run, in turn. Everything is on loopback. Bars are in the table; a ratio is
how many times faster than the peer, or how far inside the bar (1 is just met). The table is also in
`tests/bench/results/latest.json`.
"""


def read_machine() -> str:
    """What the figures were measured on, in a sentence."""
    with Path("/proc/meminfo").open(encoding="ascii") as lines:
        memory_kib = int(next(line for line in lines if line.startswith("MemTotal:")).split()[1])
    with Path("/proc/cpuinfo").open(encoding="ascii", errors="replace") as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{os.cpu_count()} cores ({models[0] if models else platform.machine()}), {memory_kib / 2**20:.0f} GiB, "
        f"kernel {platform.release()}, Python {platform.python_version()}, {ssl.OPENSSL_VERSION}, "
        f"SQLite {sqlite3.sqlite_version}; {libraries}"
    )


def format_value(value: float | None, unit: str = "") -> str:
    """Three digits that mean something; a dash where nothing was measured."""
    if value is None:
        return "-"
    if math.isinf(value):
        return "inf"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f} {unit}".strip()


def cells_of(row: Measurement) -> tuple[str, ...]:
    """One line of the table."""
    met = "yes" if row.met else "NO"
    ours, peer = format_value(row.ours, row.unit), format_value(row.peer, row.unit)
    return (row.name, ours, peer, format_value(row.ratio), row.bar, met)


def render_table(rows: Sequence[Measurement]) -> str:
    """For a terminal."""
    lines = [HEADINGS, *(cells_of(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def render_document(rows: Sequence[Measurement], machine: str, at: datetime) -> str:
    """docs/benchmarks.md."""
    table = [HEADINGS, tuple("---" for _ in HEADINGS), *(cells_of(row) for row in rows)]
    lines = [INTRODUCTION, f"Measured {at:%Y-%m-%d %H:%M} UTC on: {machine}.", ""]
    lines += [f"| {' | '.join(line)} |" for line in table]
    notes = [f"- **{row.name}**: {row.note}." for row in rows if row.note]
    if notes:
        lines += ["", "## Row by row", "", *notes]
    return "\n".join(lines) + "\n"


def merge_rows(known: Sequence[Measurement], fresh: Sequence[Measurement], order: Sequence[str]) -> list[Measurement]:
    """Fresh rows replace those of the same name; rows that no benchmark has any more are dropped."""
    by_name = {row.name: row for row in (*known, *fresh)}
    return [by_name[name] for name in order if name in by_name]


def read_results(folder: Path = RESULTS) -> list[Measurement]:
    """The rows of earlier runs; none when there was none."""
    try:
        rows = msgspec.json.decode((folder / "latest.json").read_bytes(), type=list[dict[str, object]])
        notes = msgspec.json.decode((folder / "notes.json").read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return []
    return [msgspec.convert({**row, "note": notes.get(str(row["name"]), "")}, Measurement) for row in rows]


def write_results(rows: Sequence[Measurement], folder: Path = RESULTS) -> None:
    """latest.json holds the table and nothing else; the notes lie beside it."""
    folder.mkdir(exist_ok=True)
    table = [{name: getattr(row, name) for name in FIELDS} for row in rows]
    notes = {row.name: row.note for row in rows}
    for name, content in (("latest.json", table), ("notes.json", notes)):
        (folder / name).write_bytes(msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")


def write_document(rows: Sequence[Measurement], path: Path = DOCUMENT) -> None:
    """The table for readers."""
    path.write_text(render_document(rows, read_machine(), datetime.now(UTC)), encoding="utf-8")

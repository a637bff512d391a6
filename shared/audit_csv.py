"""The audit log as CSV: for spreadsheets, and still provable. Pure, of the standard library alone.

A cell that a spreadsheet would take for a formula begins with an apostrophe; so does one that begins with an apostrophe
itself, which is how a reader gets back exactly what was written.
Source: OWASP, "CSV Injection"; RFC 4180.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from shared.audit_proof import LATER_FIELDS, PLAIN_FIELDS, STATE_FIELDS, ProofError

COLUMNS: Final = ("kind", *PLAIN_FIELDS, *LATER_FIELDS, *STATE_FIELDS, "previous_hash", "hash", "details")
"""`details` has what is no entry: the head, checkpoints and the end, as JSON."""
MAX_CELL: Final = 16 * 1024 * 1024
_DANGEROUS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Those of full width too: some spreadsheets take them for the same."""


def protect_cell(text: str) -> str:
    """The text as no formula."""
    return f"'{text}" if text.startswith(_DANGEROUS) else text


def unprotect_cell(cell: str) -> str:
    """What `protect_cell` was given."""
    return cell.removeprefix("'")


def render_rows(records: Iterable[Mapping[str, Any]]) -> str:
    """Lines of CSV, without the names of the columns."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([protect_cell(cell) for cell in _cells(record)] for record in records)
    return out.getvalue()


def render_header() -> str:
    """The names of the columns."""
    return ",".join(COLUMNS) + "\r\n"


def _cells(record: Mapping[str, Any]) -> Sequence[str]:
    kind = str(record["kind"])
    if kind != "entry":
        details = {name: value for name, value in record.items() if name != "kind"}
        return [kind, *([""] * (len(COLUMNS) - 2)), json.dumps(details, ensure_ascii=False)]
    return [
        kind,
        *(str(record[name]) for name in PLAIN_FIELDS),
        *(record.get(name) or "" for name in LATER_FIELDS),
        *("" if record[name] is None else json.dumps(record[name], ensure_ascii=False) for name in STATE_FIELDS),
        str(record["previous_hash"]),
        str(record["hash"]),
        "",
    ]


def parse_rows(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The records of an export in CSV.

    Raises:
        ProofError: It is none; a file that was cut off ends in half a row.
    """
    csv.field_size_limit(MAX_CELL)
    reader = csv.reader(lines, strict=True)
    try:
        if tuple(next(reader, ())) != COLUMNS:
            raise ProofError("the first line does not name the columns of an export")
        for row in reader:
            yield _parse_row([unprotect_cell(cell) for cell in row])
    except (csv.Error, json.JSONDecodeError, ValueError) as error:
        if isinstance(error, ProofError):
            raise
        raise ProofError(f"line {reader.line_num}: {error}: the file was cut off or edited") from error


def _parse_row(row: Sequence[str]) -> dict[str, Any]:
    if len(row) != len(COLUMNS):
        raise ValueError(f"{len(row)} cells instead of {len(COLUMNS)}")
    cells: dict[str, Any] = dict(zip(COLUMNS, row, strict=True))
    details = cells.pop("details")
    if cells["kind"] != "entry":
        return {**json.loads(details), "kind": cells["kind"]}
    cells["number"] = int(cells["number"])
    for name in LATER_FIELDS:
        cells[name] = cells[name] or None
    for name in STATE_FIELDS:
        cells[name] = json.loads(cells[name]) if cells[name] else None
    return cells

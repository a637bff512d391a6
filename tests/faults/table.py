"""The table in docs/faults.md: which tests prove which fault.

`python -m tests.faults.table` writes the last column from the tests that there are; tests/architecture/test_faults.py
fails when somebody forgot to.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/faults.md"
NUMBERS = range(1, 34)
_NAME = re.compile(r"test_fault_(\d\d)_\w+")


def find_tests() -> dict[int, list[str]]:
    """Number of the fault to its tests, `path::name`."""
    found: dict[int, list[str]] = {number: [] for number in NUMBERS}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and (match := _NAME.fullmatch(node.name)):
                found.setdefault(int(match[1]), []).append(f"{path.relative_to(ROOT / 'tests')}::{node.name}")
    return found


def read_rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """Number and the other cells of each row of the table."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and cells[0].isdigit():
            yield int(cells[0]), cells[1:]


def render_tests(names: list[str]) -> str:
    """The last cell of a row."""
    return "<br>".join(f"`{name}`" for name in names)


def main() -> None:
    """Write the last column."""
    tests = find_tests()
    lines = []
    for line in DOCUMENT.read_text().splitlines():
        rows = list(read_rows(line))
        if rows:
            number, cells = rows[0]
            line = f"| {number} | {' | '.join([*cells[:-1], render_tests(tests[number])])} |"  # noqa: PLW2901 - the row as it shall be
        lines.append(line)
    DOCUMENT.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

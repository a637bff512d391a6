"""docs/features.md promises nothing that no test proves."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ROOT / "docs" / "features.md"
ROW = re.compile(r"^\|\s*(\d+)\s*\|(.+)\|\s*(done|partly|no)\s*\|(.*)\|\s*$")


def rows() -> list[tuple[int, str, str, list[str]]]:
    found = []
    for line in FEATURES.read_text().splitlines():
        match = ROW.match(line)
        if match:
            proofs = re.findall(r"`([^`]+)`", match.group(4))
            found.append((int(match.group(1)), match.group(2).strip(), match.group(3), proofs))
    return found


def defined_tests(path: Path) -> set[str]:
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {item.name for item in node.body if isinstance(item, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return names


def test_features_when_counted_are_all_300_in_order() -> None:
    assert [number for number, *_ in rows()] == list(range(1, 301))


def test_features_when_done_or_partly_name_a_proof() -> None:
    unproven = [number for number, _, state, proofs in rows() if state != "no" and not proofs]

    assert unproven == []


def test_features_when_not_done_name_no_proof() -> None:
    odd = [number for number, _, state, proofs in rows() if state == "no" and proofs]

    assert odd == []


def test_proofs_when_looked_up_exist() -> None:
    missing = []
    for number, _, _, proofs in rows():
        for proof in proofs:
            file_name, _, test_name = proof.partition("::")
            path = ROOT / file_name
            if not path.is_file() or (test_name and test_name not in defined_tests(path)):
                missing.append(f"row {number}: {proof}")

    assert missing == []

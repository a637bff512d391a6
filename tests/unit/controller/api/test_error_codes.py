"""docs/errors.md explains every code that the source uses, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[4]
PACKAGES = ("shared", "controller", "agent")
CODE = re.compile(r"[a-z][a-z_]+")
ROW = re.compile(r"^\| `([a-z_]+)` \|", re.MULTILINE)


def constant(node: ast.expr | None) -> str | None:
    is_code = isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value)
    return str(node.value) if is_code else None  # type: ignore[union-attr]


def positions_of_code(tree: ast.AST) -> dict[str, int]:
    """Function that takes a code to the place of that argument (without self)."""
    positions = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [argument.arg for argument in node.args.args if argument.arg not in ("self", "cls")]
            if "code" in names:
                positions[node.name] = names.index("code")
    return positions


def positional_codes_in(tree: ast.AST) -> Iterator[str]:
    positions = positions_of_code(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            place = positions.get(name)
            code = constant(node.args[place]) if place is not None and place < len(node.args) else None
            if code:
                yield code


def codes_in(tree: ast.AST) -> Iterator[str]:
    """`code="..."` in calls, `code = "..."` in error classes, `"error_code": "..."`, constants named `..._CODE` and the map of HTTP statuses."""
    for node in ast.walk(tree):
        found: list[str | None] = []
        if isinstance(node, ast.Call):
            found = [constant(keyword.value) for keyword in node.keywords if keyword.arg in ("code", "error_code")]
        elif isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
            found = [
                constant(line.value)
                for line in node.body
                if isinstance(line, ast.Assign | ast.AnnAssign)
                and any(
                    isinstance(target, ast.Name) and target.id == "code"
                    for target in (line.targets if isinstance(line, ast.Assign) else [line.target])
                )
            ]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id.endswith("_CODE"):
            found = [constant(node.value)]
        elif isinstance(node, ast.Dict):
            named = zip(node.keys, node.values, strict=True)
            found = [constant(value) for key, value in named if constant(key) == "error_code"]
        yield from (code for code in found if code)


def used_codes() -> set[str]:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in files]
    used = {code for tree in trees for code in (*codes_in(tree), *positional_codes_in(tree))}
    return used | set(_http_codes())


def _http_codes() -> Iterator[str]:
    from controller.api.errors import _CODE_OF_STATUS  # noqa: PLC0415 - only this test needs it

    yield from _CODE_OF_STATUS.values()


def documented_codes() -> list[str]:
    return ROW.findall((ROOT / "docs" / "errors.md").read_text(encoding="utf-8"))


def test_errors_page_explains_every_code_in_use() -> None:
    assert sorted(used_codes() - set(documented_codes())) == []


def test_errors_page_explains_no_code_that_is_not_in_use() -> None:
    assert sorted(set(documented_codes()) - used_codes()) == []


def test_errors_page_explains_each_code_once() -> None:
    codes = documented_codes()

    assert sorted(code for code in set(codes) if codes.count(code) > 1) == []

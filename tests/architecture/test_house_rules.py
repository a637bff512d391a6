"""The rules of the house that a program can check. Each failure prints the reason for the rule."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("shared", "agent", "controller", "cli")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
# A file may be listed here with its present length; the number may only shrink.
LONG_FILES: dict[str, int] = {}


def source_files() -> list[Path]:
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [path for path in files if "migrations/versions" not in path.as_posix()]


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_files_when_measured_are_short_enough_to_read_at_once() -> None:
    lengths = {relative(path): len(path.read_text().splitlines()) for path in source_files()}
    too_long = {name: count for name, count in lengths.items() if count > LONG_FILES.get(name, MAX_FILE_LINES)}

    assert too_long == {}, "split by reason to change (CONTRIBUTING.md, size)"


def test_functions_when_measured_fit_on_a_screen() -> None:
    too_long = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path in source_files()
        for node in functions(path)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > MAX_FUNCTION_LINES
    ]

    assert too_long == []


def test_packages_when_opened_say_what_they_are_for() -> None:
    silent = [
        relative(path)
        for path in source_files()
        if path.name == "__init__.py" and not (ast.get_docstring(ast.parse(path.read_text())) or "").strip()
    ]

    assert silent == [], "one paragraph: purpose, invariant, what is not here"


def test_functions_when_declared_have_a_return_type() -> None:
    untyped = [
        f"{relative(path)}:{node.lineno} {node.name}"
        for path in source_files()
        for node in functions(path)
        if node.returns is None
    ]

    assert untyped == []


@pytest.mark.parametrize("word", ["shell=True", "os.popen", "asyncio.create_subprocess_shell", "eval(", "exec("])
def test_sources_when_searched_hold_no_shell_strings(word: str) -> None:
    pattern = re.compile(r"(?<![\w.])" + re.escape(word))
    found = [relative(path) for path in source_files() if pattern.search(path.read_text())]

    assert found == [], "nothing on a node is done by a string in a shell"


def test_processes_when_started_go_through_the_one_runner() -> None:
    door = "agent/system/runner.py"
    found = [
        relative(path)
        for path in source_files()
        if re.search(r"^\s*(import subprocess|from subprocess)|create_subprocess_exec", path.read_text(), re.MULTILINE)
        and relative(path) != door
        and not relative(path).startswith("agent/install/")  # runs before anything else exists on the node
    ]

    assert found == [], f"{door} is the only door for processes"


def test_todos_when_left_name_an_issue() -> None:
    found = [
        f"{relative(path)}: {line.strip()}"
        for path in source_files()
        for line in path.read_text().splitlines()
        if re.search(r"\b(TODO|FIXME|XXX)\b(?!\(#\d+\))", line)
    ]

    assert found == []


def test_lint_exceptions_when_made_carry_their_reason() -> None:
    pattern = re.compile(r"#\s*(noqa(?!: [A-Z0-9, ]+ - )|type: ignore(?!\[[a-z-, ]+\] # )|ruff: noqa)")
    found = [
        f"{relative(path)}: {line.strip()}"
        for path in source_files()
        for line in path.read_text().splitlines()
        if pattern.search(line)
    ]

    assert found == [], "write `# noqa: CODE - why` or `# type: ignore[code] # why`"


def test_broad_excepts_when_used_stand_at_the_three_boundaries_or_say_why() -> None:
    found = [
        f"{relative(path)}:{number}"
        for path in source_files()
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if re.search(r"except\s*:|except BaseException|except Exception", line)
        and "noqa: BLE001 - " not in line
        and not re.search(r"except BaseException", line)
    ]

    assert found == []

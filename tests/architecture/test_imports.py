"""Who may import whom (docs/architecture.md, invariants): the contracts of pyproject.toml hold, and two rules beside them."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from importlinter.cli import lint_imports

ROOT = Path(__file__).resolve().parents[2]
CLI_MAY_IMPORT = {
    "cli",
    "shared.version",
    "shared.audit_proof",
    "shared.audit_walk",
    "shared.audit_witness",
    "shared.audit_csv",
    "click",
    "httpx",
    "rich",
    "websockets",
}
QUICKSTART_MAY_IMPORT = {"wcplab", "httpx"}
DATABASE_LIBRARIES = {"sqlalchemy", "alembic", "aiosqlite", "asyncpg", "sqlite3"}


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def is_of_the_standard_library(name: str) -> bool:
    return name.partition(".")[0] in sys.stdlib_module_names


def is_allowed(name: str, allowed: set[str]) -> bool:
    return any(name == item or name.startswith(f"{item}.") for item in allowed)


def test_contracts_when_linted_are_kept() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_contracts_when_read_keep_core_apart_from_modules() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    agent = [item for item in contracts if item.get("forbidden_modules") == ["agent.modules"]]
    layers = next(item["layers"] for item in contracts if item["type"] == "layers")

    assert {"agent.core", "agent.system", "agent.contract", "agent.link"} <= set(agent[0]["source_modules"])
    assert layers.index("controller.modules") < layers.index("controller.core")


def test_command_line_when_read_knows_the_api_only() -> None:
    found = [
        f"{path.name}: {name}"
        for path in sorted((ROOT / "cli").rglob("*.py"))
        for name in imports_of(path)
        if not is_of_the_standard_library(name) and not is_allowed(name, CLI_MAY_IMPORT)
    ]

    assert found == [], "whatever the command line can do, the API can"


def test_quickstart_when_read_knows_the_api_and_the_lab_only() -> None:
    folder = ROOT / "packaging/quickstart"
    own = {path.stem for path in folder.glob("*.py")}
    found = [
        f"{path.name}: {name}"
        for path in sorted(folder.glob("*.py"))
        for name in imports_of(path)
        if not is_of_the_standard_library(name) and not is_allowed(name, own | QUICKSTART_MAY_IMPORT)
    ]

    assert found == [], "what `make run` does, an administrator can do"


def test_database_when_reached_is_reached_by_the_controller_only() -> None:
    others = [path for folder in ("cli", "shared", "packaging/quickstart") for path in (ROOT / folder).rglob("*.py")]
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted(others)
        for name in imports_of(path)
        if name.partition(".")[0] in DATABASE_LIBRARIES
    ]

    assert found == []

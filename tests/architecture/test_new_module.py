"""A module is complete when everything that must know it does, and nothing else has to (docs/checklists/new-module.md)."""

from __future__ import annotations

import tomllib
from pathlib import Path

from agent.bootstrap import build_registry
from controller.fleet.nodes.manifest import MODULES, MODULES_OF_ROLE
from shared.specs.module import ModuleSpec
from tests.contract import subjects

ROOT = Path(__file__).resolve().parents[2]
AGENT_MODULES = {path.parent.name for path in (ROOT / "agent/modules").glob("*/module.py")}
CONTROLLER_MODULES = {path.parent.name for path in (ROOT / "controller/modules").glob("*/__init__.py")}


def test_modules_when_found_in_the_tree_are_registered_on_both_sides() -> None:
    registered = set(build_registry().versions)

    assert AGENT_MODULES
    assert registered == AGENT_MODULES
    assert set(MODULES) == AGENT_MODULES
    assert {name for names in MODULES_OF_ROLE.values() for name in names} == AGENT_MODULES
    assert CONTROLLER_MODULES <= AGENT_MODULES


def test_modules_when_found_in_the_tree_are_in_the_contract_suite_with_every_kind() -> None:
    kinds = {converger.spec_type for module in subjects.MODULES for converger in module.convergers}
    tested = {type(subject.spec) for subject in subjects.SUBJECTS}
    hosts = {subject.spec.name for subject in subjects.SUBJECTS if isinstance(subject.spec, ModuleSpec)}

    assert {module.name for module in subjects.MODULES} == AGENT_MODULES
    assert kinds <= tested
    assert hosts == AGENT_MODULES


def test_modules_when_found_in_the_tree_are_kept_apart_by_a_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    independent = {name for item in contracts if item["type"] == "independence" for name in item["modules"]}

    assert {f"agent.modules.{name}" for name in AGENT_MODULES} <= independent
    assert {f"controller.modules.{name}" for name in CONTROLLER_MODULES} <= independent


def test_modules_when_found_in_the_tree_have_cases_and_a_page() -> None:
    without = [
        name
        for name in sorted(AGENT_MODULES)
        if not any((ROOT / "tests/cases" / name).rglob("*.toml")) or not (ROOT / f"docs/modules/{name}.md").is_file()
    ]

    assert without == []

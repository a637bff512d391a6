"""What narrows a tenant's session holds only for statements of the mapper, and each that is widened is deliberate."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PLACES: Final = ("controller/core", "controller/modules")
WIDENED: Final = {
    "controller/core/accounts/fleet.py": "what nodes have promised to all tenants",
    "controller/core/accounts/store.py": "names of accounts are the fleet's",
    "controller/core/auth/emails.py": "a link for another password goes to one person of all",
    "controller/core/auth/users.py": "all people sign in at one place; a tenant is open whoever asks",
    "controller/core/domains/store.py": "a domain is claimed once in the fleet",
    "controller/core/operations.py": "jobs and tasks are the platform's work, in the tenant's transaction",
    "controller/core/packages/lineage.py": "a line of packages does not end where a tenant does",
    "controller/core/packages/store.py": "the name of a package, at its owner",
    "controller/core/resellers/caps.py": "what a reseller handed out, also in packages that it does not see",
    "controller/core/resellers/transfers.py": "the package that an account has, also one that its tenant does not see",
    "controller/core/packages/terms.py": "what an account has, also by a package that its tenant does not see",
    "controller/core/packages/rollouts/begin.py": "a package must not change under the open rollout of one that it inherits from",
    "controller/core/rules/trial.py": "a rule acts as its maker, who may have left the reseller",
    "controller/core/tenancy/people.py": "the last root is of no tenant",
    "controller/core/tenancy/roles.py": "a role is in use also where somebody out of sight has it",
}
"""Files with statements that look at everybody's rows, and why."""
PLAIN: Final = {
    "controller/core/tenancy/criteria.py": "the conditions themselves",
    "controller/core/operations.py": "a lock of the whole database",
    "controller/core/attention/sources.py": "whether one's own job is parked or was made again, by that job's own keys",
}
"""Files with statements on tables or in SQL, and why they show no tenant's rows."""


def names_in(path: Path) -> set[str]:
    """Every name and attribute that the file uses, and every function that it calls by its bare name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return found


def files_with(*names: str) -> set[str]:
    """Files of core and modules that use one of these names."""
    paths = (path for place in PLACES for path in (ROOT / place).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix() for path in paths if names_in(path) & set(names)}


def test_statements_when_they_look_at_all_tenants_are_in_a_file_that_says_why() -> None:
    assert files_with("EVERYBODY", "widened") == set(WIDENED)


def test_statements_when_they_pass_the_mapper_by_are_in_a_file_that_says_why() -> None:
    assert files_with("__table__", "exec_driver_sql") | files_with_sql() == set(PLAIN)


def files_with_sql() -> set[str]:
    """Files that import SQLAlchemy's `text`, but for models, whose conditions of indexes are text."""
    return {path for path in files_with("text") if not path.endswith("/models.py") and _imports_text(ROOT / path)}


def _imports_text(path: Path) -> bool:
    imports = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
    return any(node.module == "sqlalchemy" and "text" in {name.name for name in node.names} for node in imports)

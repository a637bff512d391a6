"""No way to change anything past the audit log: who opens a writing transaction beside Operations, and why."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
OPENERS: Final = frozenset({"write", "hot"})
"""Of controller.db.engine.Database: a transaction that may write."""

BESIDE_OPERATIONS: Final = {
    # File: what it writes, none of it a change that anybody asked for, or how it is audited. This list may only shrink.
    "controller/administration.py": "before there is an administrator; audited by append_entries",
    "controller/core/api_usage/recorder.py": "how often the API was asked",
    "controller/core/audit/archive_files.py": "parts of a file that nothing names yet; naming it is audited",
    "controller/core/audit/archives.py": "takes out entries that an archive names; the archive itself is audited",
    "controller/core/audit/checkpoints.py": "the log's own signatures",
    "controller/core/audit/refusals.py": "the log's own entries",
    "controller/core/audit/witnesses.py": "the log's own signatures",
    "controller/core/auth/attempts.py": "forgets old attempts to sign in",
    "controller/core/auth/identities.py": "when a token was used",
    "controller/core/auth/resets.py": "the secret of a link that is being mailed; asking for it and using it are audited",
    "controller/core/auth/service.py": "sessions; audited by append_entries",
    "controller/core/notices/collector.py": "what people are told of audited changes",
    "controller/core/notices/delivery.py": "what became of mails",
    "controller/core/operations.py": "this is the one way",
    "controller/core/usage/figures.py": "what nodes counted",
    "controller/core/rules/runner.py": "what became of runs",
    "controller/core/webhooks/delivery.py": "what became of messages",
    "controller/fleet/fleet.py": "presence",
    "controller/fleet/gateway/pings.py": "jobs that change nothing: a look at a node",
    "controller/fleet/gateway/presence.py": "presence",
    "controller/fleet/gateway/processes.py": "presence of our own processes",
    "controller/fleet/gateway/session.py": "what nodes say of themselves",
    "controller/fleet/gateway/traffic.py": "offers and results of jobs",
    "controller/fleet/identity/trust_keeper.py": "signed copies of what was decided elsewhere",
    "controller/fleet/nodes/health_keeper.py": "judgements about nodes",
    "controller/fleet/rollouts/updates.py": "offers of releases",
    "controller/jobs/engine.py": "states of jobs",
    "controller/jobs/retention.py": "forgets old jobs",
    "controller/jobs/schedules.py": "when a schedule ran",
    "controller/jobs/tasks.py": "states of tasks",
    "controller/maintenance_command.py": "audited by append_entries",
}


def opens_writing(path: Path) -> bool:
    """Whether the file enters `something.write()` or `something.hot()` as a transaction."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.AsyncWith):
            continue
        for item in node.items:
            call = item.context_expr
            door = call.func if isinstance(call, ast.Call) and not call.args else None
            if isinstance(door, ast.Attribute) and door.attr in OPENERS:
                return True
    return False


def list_openers() -> set[str]:
    files = (path for path in (ROOT / "controller").rglob("*.py") if path.relative_to(ROOT).parts[1] != "db")
    return {str(path.relative_to(ROOT)) for path in files if opens_writing(path)}


def test_transactions_when_they_write_are_those_of_operations_or_of_the_list() -> None:
    assert sorted(list_openers() - BESIDE_OPERATIONS.keys()) == [], "a change goes through Operations.change"


def test_list_of_exceptions_when_read_names_only_what_is_there() -> None:
    assert sorted(BESIDE_OPERATIONS.keys() - list_openers()) == [], "the list may shrink: remove it"


def test_handlers_and_modules_when_read_open_no_writing_transaction() -> None:
    found = [name for name in list_openers() if name.startswith(("controller/api/", "controller/modules/"))]

    assert found == []

"""How the database finds entries of the audit log: each filter by an index that also has their order."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.dialects import sqlite

from controller.core.audit.models import AuditEntry
from controller.core.audit.selection import AuditFilter, select_wanted
from controller.db.base import Model

FILTERS = ("action", "target", "actor", "request_id", "address", "account_id", "client_id")


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "audit.db"
    engine = create_engine(f"sqlite:///{path}")
    Model.metadata.create_all(engine, tables=[Model.metadata.tables[AuditEntry.__tablename__]])
    engine.dispose()
    opened = sqlite3.connect(path)
    yield opened
    opened.close()


def explain(connection: sqlite3.Connection, wanted: AuditFilter) -> list[str]:
    statement: Any = select_wanted(select(AuditEntry), wanted).order_by(AuditEntry.id.desc()).limit(51)
    compiled = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
    return [str(row[-1]) for row in connection.execute(f"EXPLAIN QUERY PLAN {compiled}")]


@pytest.mark.parametrize("name", FILTERS)
def test_list_audit_when_filtered_is_read_from_an_index_in_its_order(connection: sqlite3.Connection, name: str) -> None:
    plan = explain(connection, msgspec.convert({name: "x"}, AuditFilter))

    assert plan == [f"SEARCH audit_entries USING INDEX ix_audit_entries_{name} ({name}=?)"]


def test_list_audit_when_not_filtered_is_read_in_the_order_of_its_key(connection: sqlite3.Connection) -> None:
    (line,) = explain(connection, AuditFilter())

    assert line.startswith("SCAN audit_entries USING INDEX sqlite_autoindex_audit_entries")

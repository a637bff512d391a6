"""The first administrator: made once, and the file with the password does not outlive its use."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from sqlalchemy import select

from controller.administration import FIRST_ADMIN_FILE, ensure_first_admin
from controller.core.auth.models import User
from controller.core.auth.passwords import Passwords
from controller.core.auth.users import set_password
from controller.db.engine import Database
from tests.integration.conftest import FAST_HASHER


async def list_users(database: Database) -> list[User]:
    async with database.read() as session:
        return list(await session.scalars(select(User)))


async def test_first_admin_on_an_empty_database_is_made_with_the_password_in_the_file(
    database: Database, tmp_path: Path
) -> None:
    assert await ensure_first_admin(database, Passwords(FAST_HASHER), tmp_path)

    content = json.loads((tmp_path / FIRST_ADMIN_FILE).read_text())
    (user,) = await list_users(database)
    assert user.username == content["username"]
    assert FAST_HASHER.verify(user.password_hash, content["password"])
    assert (tmp_path / FIRST_ADMIN_FILE).stat().st_mode & 0o777 == 0o600


async def test_first_admin_when_somebody_exists_changes_nothing(database: Database, tmp_path: Path) -> None:
    await ensure_first_admin(database, Passwords(FAST_HASHER), tmp_path)
    before = (tmp_path / FIRST_ADMIN_FILE).read_text()

    assert not await ensure_first_admin(database, Passwords(FAST_HASHER), tmp_path)

    assert (tmp_path / FIRST_ADMIN_FILE).read_text() == before
    assert len(await list_users(database)) == 1


async def test_first_admin_file_is_removed_once_the_password_was_changed(database: Database, tmp_path: Path) -> None:
    await ensure_first_admin(database, Passwords(FAST_HASHER), tmp_path)
    async with database.write() as session:
        await set_password(session, "admin", "another hash", must_change_password=False)

    await ensure_first_admin(database, Passwords(FAST_HASHER), tmp_path)

    assert not (tmp_path / FIRST_ADMIN_FILE).exists()


async def test_first_admin_by_two_starts_at_once_is_one(database: Database, tmp_path: Path) -> None:
    starts = (ensure_first_admin(database, Passwords(FAST_HASHER), tmp_path) for _ in range(2))

    results = await asyncio.gather(*starts, return_exceptions=True)

    (user,) = await list_users(database)
    content = json.loads((tmp_path / FIRST_ADMIN_FILE).read_text())
    assert True in results
    assert FAST_HASHER.verify(user.password_hash, content["password"])

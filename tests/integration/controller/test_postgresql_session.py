"""What every connection to PostgreSQL promises to the other processes."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from controller.db.engine import Database


@pytest.mark.postgresql
async def test_transaction_of_a_stopped_process_is_ended_by_the_server(postgres_url: str) -> None:
    database = Database(postgres_url)
    try:
        async with database.read() as session:
            assert (await session.execute(text("SHOW idle_in_transaction_session_timeout"))).scalar_one() == "8s"
        async with database._hot.reading() as driver:
            assert [tuple(row) for row in await driver.fetch("SHOW idle_in_transaction_session_timeout", ())] == [
                ("8s",)
            ]
    finally:
        await database.close()

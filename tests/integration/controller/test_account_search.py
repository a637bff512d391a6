"""Lists and searches among ten thousand accounts: what the databases' planners do, not how long it takes."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Select, insert

from controller.core.accounts.models import Account, AccountLabel, AccountState
from controller.core.accounts.queries import AccountFilter, select_accounts
from controller.core.clients.models import Client
from controller.core.domains.models import Domain
from controller.db.base import new_id
from controller.db.engine import Database
from tests.integration.controller.hosting import ADMIN, Hosting, build_hosting
from tests.integration.query_plans import settle

ACCOUNTS = 10_000


@pytest.fixture
async def crowd(database: Database, tmp_path: Path) -> AsyncIterator[Hosting]:
    """Ten thousand accounts of two thousand clients with a label and two domains each; one in a thousand is trashed."""
    hosting = await build_hosting(database, tmp_path / "pki")
    node_id, package_id = await hosting.add_node(), await hosting.add_package()
    clients = [{"id": new_id(), "name": f"Client {n}", "email": f"c{n}@example.com"} for n in range(2000)]
    accounts = [
        {
            "id": new_id(), "name": f"user{n}", "client_id": clients[n % 2000]["id"], "package_id": package_id,
            "node_id": node_id, "uid": 20_000 + n, "labels": {"plan": f"p{n % 500}"},
            "state": AccountState.TRASHED if n % 1000 == 0 else AccountState.ACTIVE,
        }
        for n in range(ACCOUNTS)
    ]  # fmt: skip
    labels = [{"account_id": row["id"], "key": "plan", "value": f"p{n % 500}"} for n, row in enumerate(accounts)]
    domains = [
        {"account_id": row["id"], "name": f"{kind}{n}.example"} for n, row in enumerate(accounts) for kind in "ab"
    ]
    async with database.write() as session:
        for model, rows in ((Client, clients), (Account, accounts), (AccountLabel, labels), (Domain, domains)):
            await session.execute(insert(model), rows)
    await settle(database)
    yield hosting
    await hosting.http.aclose()


async def explain(database: Database, statement: Select[Account]) -> str:
    page = statement.order_by(Account.id.desc()).limit(101)
    compiled = page.compile(dialect=database.engine.dialect, compile_kwargs={"literal_binds": True})
    prefix = "EXPLAIN QUERY PLAN " if database.is_sqlite else "EXPLAIN "
    async with database.engine.connect() as connection:
        rows = (await connection.exec_driver_sql(prefix + str(compiled))).all()
    return "\n".join(str(row[-1]) for row in rows)


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (AccountFilter(label="plan=p77"), "ix_account_labels_key"),
        (AccountFilter(state="trashed"), "ix_accounts_state"),
    ],
)
async def test_filters_among_many_accounts_use_an_index(crowd: Hosting, wanted: AccountFilter, index: str) -> None:
    plan = await explain(crowd.database, select_accounts(ADMIN, wanted, None))

    assert index in plan, plan


async def test_search_among_many_accounts_finds_the_few_that_fit(crowd: Hosting) -> None:
    found = {
        text: [item["name"] for item in (await crowd.get("/accounts", search=text))["items"]]
        for text in ("user777", "b4321.ex", "Client 1234", "p499")
    }

    assert found["user777"] == [*(f"user777{n}" for n in range(9, -1, -1)), "user777"]
    assert found["b4321.ex"] == ["user4321"]
    assert found["Client 1234"] == [f"user{n}" for n in (9234, 7234, 5234, 3234, 1234)]
    assert len(found["p499"]) == ACCOUNTS // 500


async def test_search_among_many_accounts_reads_each_place_once_and_by_its_index(crowd: Hosting) -> None:
    plan = await explain(crowd.database, select_accounts(ADMIN, AccountFilter(), "nobody"))

    assert "CORRELATED" not in plan, plan
    if not crowd.database.is_sqlite:
        used = set(re.findall(r"tg_\w+", plan))
        assert used >= {"tg_accounts_name", "tg_accounts_note", "tg_clients_name", "tg_domains_name"}, plan
        assert used >= {"tg_account_labels_key", "tg_account_labels_value"}, plan
        assert "Seq Scan" not in plan, plan

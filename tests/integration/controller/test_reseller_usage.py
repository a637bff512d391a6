"""What resellers handed out and what of it is used: now, day by day, over all of them, and as a file."""

from __future__ import annotations

import csv
import io

from sqlalchemy import update

from controller.core.clients.models import Client
from controller.core.context import Role
from controller.core.usage.measure import UsageLedger
from tests.integration.controller.hosting import Hosting
from tests.integration.controller.reselling import API, open_shop, sign_in


async def test_usage_of_a_reseller_has_promised_used_cap_and_factor_of_everything(hosting: Hosting) -> None:
    shop = await open_shop(hosting, caps={"domains": 10, "accounts": 5}, oversell={"domains": 1.5})
    package_id = await hosting.add_package("Starter", limits={"domains": 4})
    account_id = await shop.add_account("ada", package_id)
    await shop.add_account("bob", package_id)
    await hosting.post("/domains", {"account_id": account_id, "name": "a.example"}, expect=201)
    await UsageLedger(hosting.operations).run()

    usage = await shop.ask("GET", f"/resellers/{shop.id}/usage", expect=200)
    history = await shop.ask("GET", f"/resellers/{shop.id}/usage-history", expect=200, key="domains")
    await shop.ask("GET", f"/resellers/{shop.id}/usage-history", expect=400, key="weather")

    items = {item["limit"]: item for item in usage["items"]}
    names = ("promised", "used", "cap", "factor", "allowed", "unlimited", "is_over")
    assert [items["domains"][name] for name in names] == [8, 1, 10, 1.5, 15, 0, False]
    assert [items["accounts"][name] for name in names] == [2, 2, 5, 1.0, 5, 0, False]
    assert [items["mailboxes"][name] for name in names] == [0, None, None, 1.0, None, 2, False]
    assert [(row["name"], row["accounts"]) for row in usage["packages"]] == [("Starter", 2)]
    assert [(row["last"], row["accounts"]) for row in history["items"]] == [(1, 2)]


async def test_usage_of_all_resellers_shows_the_fullest_first_in_pages(hosting: Hosting) -> None:
    package_id = await hosting.add_package("Starter")
    for name, cap, accounts in (("none", None, 1), ("half", 2, 1), ("full", 1, 1), ("empty", 4, 0)):
        shop = await open_shop(hosting, name, caps={"accounts": cap})
        for number in range(accounts):
            await shop.add_account(f"{name}{number}", package_id)
    await hosting.patch(f"/resellers/{shop.id}", {"caps": {"clients": 0}}, expect=200)

    first = await hosting.get("/resellers/usage", limit=2)
    second = await hosting.get("/resellers/usage", limit=2, cursor=first["next_cursor"])
    await hosting.get("/resellers/usage", cursor="nonsense", expect=400)

    assert [(row["name"], row["fullest"], row["over"]) for row in first["items"]] == [
        ("empty", "clients", ["clients"]),
        ("full", "accounts", []),
    ]
    assert [(row["name"], row["filled"]) for row in second["items"]] == [("half", 0.5), ("none", 0.0)]
    assert second["next_cursor"] is None


async def test_usage_export_has_a_line_for_each_day_account_and_limit_and_no_formula(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    package_id = await hosting.add_package("Starter")
    account_id = await shop.add_account("ada", package_id)
    await other.add_account("bob", package_id)
    async with hosting.database.write() as session:
        await session.execute(update(Client).where(Client.id == shop.client_id).values(name="=1+1"))
    await UsageLedger(hosting.operations).run()

    path = f"{API}/resellers/{shop.id}/usage-export"
    answer = await hosting.http.get(path, headers=shop.headers)
    empty = await hosting.http.get(path, params={"begins_on": "2020-01-01", "ends_on": "2020-02-01"})
    for query in ({"begins_on": "2020-01-01", "ends_on": "2022-01-01"}, {"ends_on": "2020-01-01", "begins_on": "x"}):
        assert (await hosting.http.get(path, params=query)).status_code == 400

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert {(row["account_id"], row["client"], row["last"]) for row in rows} == {(account_id, "'=1+1", "0")}
    assert {row["limit"] for row in rows} == {"sites", "domains", "subdomains", "ssh_keys"}
    assert len(empty.text.splitlines()) == 1


async def test_usage_of_another_reseller_is_not_there(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    headers = await sign_in(hosting, "ada", Role.CLIENT, client_id=shop.client_id)

    for name in ("usage", "usage-history", "usage-export"):
        await shop.ask("GET", f"/resellers/{other.id}/{name}", expect=404)
        refused = await hosting.http.get(f"{API}/resellers/{shop.id}/{name}", headers=headers)
        assert refused.status_code == 403
    await shop.ask("GET", "/resellers/usage", expect=403)

"""What resellers handed out and what of it is used: now, day by day, over all of them, and as a file."""

from __future__ import annotations

import csv
import io
from datetime import date, timedelta

import pytest
from sqlalchemy import update

from controller.core.clients.models import Client
from controller.core.context import Role
from controller.core.resellers.usage_export import ExportPlace, ExportRows, Span, read_export_page, write_export
from controller.core.usage.measure import UsageLedger
from controller.core.usage.models import UsageDay
from tests.integration.controller.hosting import ADMIN, Hosting
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
    for query in ({"begins_on": "2010-01-01", "ends_on": "2022-01-01"}, {"ends_on": "2020-01-01", "begins_on": "x"}):
        assert (await hosting.http.get(path, params=query)).status_code == 400

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert answer.headers["content-type"].startswith("text/csv")
    assert {(row["account_id"], row["client"], row["last"]) for row in rows} == {(account_id, "'=1+1", "0")}
    assert {row["limit"] for row in rows} == {"sites", "domains", "subdomains", "ssh_keys"}
    assert len(empty.text.splitlines()) == 1


async def test_usage_export_of_years_is_sent_in_order_and_whole(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    package_id = await hosting.add_package("Starter")
    ours = [await shop.add_account(name, package_id) for name in ("ada", "bob", "eve")]
    theirs = await other.add_account("mallory", package_id)
    days = [date(2020, 1, 1) + timedelta(days=97 * number) for number in range(20)]
    async with hosting.database.write() as session:
        session.add_all(
            UsageDay(account_id=account, package_id=package_id, limit_key=key, day=day, last=1, peak=2)
            for day in days
            for account in (*ours, theirs)
            for key in ("sites", "domains")
        )
    span = {"begins_on": str(days[0]), "ends_on": str(days[-1])}

    answer = await hosting.http.get(f"{API}/resellers/{shop.id}/usage-export", headers=shop.headers, params=span)

    rows = list(csv.DictReader(io.StringIO(answer.text)))
    expected = [(str(day), account, key) for day in days for account in sorted(ours) for key in ("domains", "sites")]
    assert [(row["day"], row["account_id"], row["limit"]) for row in rows] == expected


@pytest.mark.parametrize("page_rows", [1, 2, 3, 6, 7])
async def test_usage_export_whatever_a_page_holds_has_each_line_once(hosting: Hosting, page_rows: int) -> None:
    shop = await open_shop(hosting)
    package_id = await hosting.add_package("Starter")
    account_id = await shop.add_account("ada", package_id)
    keys = ("domains", "sites", "subdomains")
    async with hosting.database.write() as session:
        session.add_all(
            UsageDay(
                account_id=account_id, package_id=package_id, limit_key=key, day=date(2026, 1, day), last=1, peak=2
            )
            for day in (1, 2, 5)
            for key in keys
        )
    span = Span(shop.id, date(2026, 1, 1), date(2026, 1, 4))

    async def read_page(place: ExportPlace) -> ExportRows:
        return await hosting.operations.read(
            ADMIN, "r", lambda ctx: read_export_page(ctx, span, place, page_rows=page_rows)
        )

    text = b"".join([part async for part in write_export(read_page, span)]).decode()

    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["day"][-2:], row["limit"]) for row in rows] == [(day, key) for day in ("01", "02") for key in keys]


async def test_usage_of_another_reseller_is_not_there(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    headers = await sign_in(hosting, "ada", Role.CLIENT, client_id=shop.client_id)

    for name in ("usage", "usage-history", "usage-export"):
        await shop.ask("GET", f"/resellers/{other.id}/{name}", expect=404)
        refused = await hosting.http.get(f"{API}/resellers/{shop.id}/{name}", headers=headers)
        assert refused.status_code == 403
    await shop.ask("GET", "/resellers/usage", expect=403)

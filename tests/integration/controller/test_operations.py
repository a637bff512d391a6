"""The one path of every change: races, retries, what is told afterwards."""

from __future__ import annotations

import asyncio

import pytest

from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.events.publisher import Topic
from controller.core.operations import FleetContext
from controller.core.packages.models import Package
from shared.errors import ConflictError, InvalidInputError
from tests.integration.controller.hosting import ADMIN, Hosting

LIMITS = {"php_children_max": 5, "php_memory_bytes": 1 << 27, "upload_max_bytes": 1 << 26}


async def test_change_that_meets_a_race_once_is_run_again(hosting: Hosting) -> None:
    await hosting.add_package("taken")
    attempts: list[str] = []

    async def use_case(ctx: FleetContext) -> str:
        name = "free" if attempts else "taken"
        attempts.append(name)
        ctx.session.add(Package(name=name, **LIMITS))
        await ctx.session.flush()
        record(ctx, Change("package.create", f"package/{name}", name))
        return name

    outcome = await hosting.operations.change(ADMIN, "r", use_case)

    assert (outcome.resource, attempts) == ("free", ["taken", "free"])
    assert await hosting.count(Package) == 2


async def test_change_that_meets_a_race_twice_is_a_conflict(hosting: Hosting) -> None:
    await hosting.add_package("taken")

    async def use_case(ctx: FleetContext) -> None:
        ctx.session.add(Package(name="taken", **LIMITS))
        await ctx.session.flush()

    with pytest.raises(ConflictError):
        await hosting.operations.change(ADMIN, "r", use_case)

    assert await hosting.count(Package) == 1


async def test_change_that_fails_is_not_run_again_and_writes_nothing(hosting: Hosting) -> None:
    attempts: list[int] = []

    async def use_case(ctx: FleetContext) -> None:
        attempts.append(1)
        ctx.session.add(Package(name="new", **LIMITS))
        await ctx.session.flush()
        raise InvalidInputError("no")

    with pytest.raises(InvalidInputError):
        await hosting.operations.change(ADMIN, "r", use_case)

    assert len(attempts) == 1
    assert await hosting.count(Package) == 0


async def test_changes_at_once_see_each_other_one_after_the_other(hosting: Hosting) -> None:
    package_id = await hosting.add_package("counter")

    async def add_one(ctx: FleetContext) -> None:
        package = await ctx.session.get_one(Package, package_id)
        seen = package.processes_max or 0
        await asyncio.sleep(0)  # gives every other change the chance to come in between
        package.processes_max = seen + 1
        record(ctx, Change("package.update", f"package/{package_id}", "counter"))

    await asyncio.gather(*(hosting.operations.change(ADMIN, "r", add_one) for _ in range(8)))

    assert (await hosting.get(f"/packages/{package_id}"))["processes_max"] == 8


async def test_read_throws_away_what_it_wrote(hosting: Hosting) -> None:
    async def query(ctx: FleetContext) -> None:
        ctx.session.add(Package(name="new", **LIMITS))
        await ctx.session.flush()

    await hosting.operations.read(ADMIN, "r", query)

    assert await hosting.count(Package) == 0


async def test_change_is_told_to_listeners_after_it_was_committed(hosting: Hosting) -> None:
    with hosting.publisher.subscribe() as subscription:
        subscription.topics = frozenset({Topic.ACCOUNTS.value})

        account_id = await hosting.add_account("ada")

        notice = await subscription.next(timeout_seconds=5)
    assert notice is not None
    client_id = (await hosting.get(f"/accounts/{account_id}"))["client_id"]
    assert notice.event == "account.create"
    assert notice.data == {"id": account_id, "name": "ada", "account_id": account_id, "client_id": client_id}

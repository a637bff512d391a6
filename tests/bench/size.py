"""A large hoster's controller: how long its lists, searches and filters take.

10,000 accounts with a domain and a site each, 2,000 clients, 200 packages, 40,000 jobs and 500,000 audit entries; asked
over the real application in process, signed in. SQLite is printed, PostgreSQL has the bar.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx
from sqlalchemy import insert, text

from controller.bootstrap import Controller
from controller.core.accounts.models import Account, AccountState
from controller.core.audit.checkpoints import Checkpoints
from controller.core.auth.attempts import Device
from controller.core.clients.models import Client
from controller.core.domains.models import Domain
from controller.core.packages.models import Package
from controller.core.usage.models import AccountUsage
from controller.db.base import new_id, utc_now
from controller.db.engine import Database
from controller.db.migrations import runner
from controller.fleet.models import Node, NodeState
from controller.jobs.models import Job
from controller.jobs.states import JobState
from controller.modules.web.models import Site
from shared.protocol.job import JobMode, Semantics
from tests.bench import audit
from tests.bench.framework import BenchError, Benchmark, Measurement, Options, judge, percentile
from tests.bench.postgres import durable_postgres
from tests.integration.conftest import ADMIN, PASSWORD, _add_admin, make_controller

ACCOUNTS: Final = 10_000
CLIENTS: Final = 2000
PACKAGES: Final = 200
JOBS: Final = 40_000
ENTRIES: Final = 500_000
ROUNDS: Final = 20
BAR_MS: Final = 50.0
POSTGRESQL: Final = "10,000 accounts: the slowest list, search or filter, p95, PostgreSQL"
SQLITE: Final = "10,000 accounts: the slowest list, search or filter, p95, SQLite"
MIB: Final = 2**20
CHUNK: Final = 5000


async def _insert(database: Database, table: Any, rows: list[dict[str, Any]]) -> None:
    for start in range(0, len(rows), CHUNK):
        async with database.write() as session:
            await session.execute(insert(table), rows[start : start + CHUNK])


async def fill(database: Database, share: float) -> dict[str, str]:
    """Write the rows; some ids to ask for."""
    accounts, clients, packages = (max(20, int(share * number)) for number in (ACCOUNTS, CLIENTS, PACKAGES))
    now = utc_now()
    nodes = [
        {
            "id": new_id(), "name": f"node{number}", "state": NodeState.ACTIVE, "roles": ["web"],
            "machine_id_hash": f"{number}", "sealing_public_key": b"", "is_connected": True,
        }
        for number in range(20)
    ]  # fmt: skip
    people = [{"id": new_id(), "name": f"Client {n}", "email": f"c{n}@example.com"} for n in range(clients)]
    plans = [
        {
            "id": new_id(), "name": f"Plan {n}", "cpu_percent": 50, "memory_bytes": 256 * MIB, "php_children_max": 5,
            "php_memory_bytes": 128 * MIB, "upload_max_bytes": 64 * MIB,
        }
        for n in range(packages)
    ]  # fmt: skip
    owners = [
        {
            "id": new_id(), "name": f"acc{n}", "client_id": people[n % clients]["id"],
            "package_id": plans[n % packages]["id"], "node_id": nodes[n % 20]["id"], "uid": 20_001 + n // 20,
            "state": AccountState.SUSPENDED if n % 50 == 0 else AccountState.ACTIVE,
        }
        for n in range(accounts)
    ]  # fmt: skip
    names = [{"id": new_id(), "name": f"site{n}.example", "account_id": owner["id"]} for n, owner in enumerate(owners)]
    sites = [
        {
            "id": new_id(), "account_id": owner["id"], "domain": f"site{n}.example", "aliases": [],
            "document_root": "public",
        }
        for n, owner in enumerate(owners)
    ]  # fmt: skip
    used = [
        {
            "id": new_id(), "account_id": owner["id"], "limit_key": "disk_bytes", "used": MIB * (n % 90),
            "peak": MIB * 90, "peak_at": now, "soft": MIB * 80, "hard": MIB * 100, "measured_at": now,
        }
        for n, owner in enumerate(owners)
    ]  # fmt: skip
    jobs = [
        {
            "id": new_id(), "node_id": nodes[n % 20]["id"], "account_id": owners[n % accounts]["id"],
            "action": "converge", "args": b"", "resource_key": f"account/acc{n % accounts}", "mode": JobMode.APPLY,
            "semantics": Semantics.CONVERGE, "label": "converge", "actor": "user/1", "request_id": f"r{n}",
            "state": JobState.FAILED if n % 2000 == 0 else JobState.SUCCEEDED, "not_before": now,
            "expires_at": now + timedelta(days=1), "max_runtime_seconds": 60, "finished_at": now,
        }
        for n in range(int(share * JOBS))
    ]  # fmt: skip
    parts: tuple[tuple[Any, list[dict[str, Any]]], ...] = (
        (Node, nodes), (Client, people), (Package, plans), (Account, owners), (Domain, names), (Site, sites),
        (AccountUsage, used), (Job, jobs),
    )  # fmt: skip
    for table, rows in parts:
        await _insert(database, table, rows)
    ids = {"account": owners[-1]["id"], "client": people[-1]["id"], "node": nodes[0]["id"], "package": plans[0]["id"]}
    return {name: str(value) for name, value in ids.items()}


def list_questions(ids: Mapping[str, str]) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Path and query of everything that a screen asks for."""
    account, client = {"account_id": ids["account"]}, {"client_id": ids["client"]}
    of_audit: tuple[dict[str, Any], ...] = (
        {}, {"action": "account.update"}, {"action": "site.create"}, {"target": "account/account-77"},
        {"by": "user/7"}, {"by": "user/none"}, {"account_id": "account-77"}, {"client_id": "client-7"},
        {"address": "192.0.2.1"}, {"address": "192.0.2.9"}, {"request_id": "r77"},
        {"since": "2026-01-03T00:00:00Z", "until": "2026-01-03T01:00:00Z"}, {"search": "ada"},
    )  # fmt: skip
    plain: tuple[tuple[str, dict[str, Any]], ...] = (
        ("/accounts", {}), ("/accounts", {"search": "acc77"}), ("/accounts", client),
        ("/clients", {}), ("/clients", {"search": "Client 77"}), ("/packages", {}), ("/domains", {}),
        ("/domains", account), ("/domains", {"search": "site77"}), ("/sites", {}), ("/sites", account),
        ("/sites", {"search": "site77"}), ("/jobs", {}), ("/jobs", {"state": "failed"}), ("/jobs", account),
        ("/jobs", {"node_id": ids["node"]}), ("/attention", {}), ("/nodes", {}), ("/usage", {}),
        (f"/accounts/{ids['account']}", {}), (f"/clients/{ids['client']}", {}),
    )  # fmt: skip
    return (*plain, *(("/audit", query) for query in of_audit))


async def ask(controller: Controller, ids: Mapping[str, str]) -> dict[str, float]:
    """Question to its 95th percentile in milliseconds."""
    token = (await controller.authenticator.sign_in(ADMIN, PASSWORD, Device(address="::1", user_agent="bench"))).secret
    transport = httpx.ASGITransport(app=controller.app.asgi)
    found: dict[str, float] = {}
    async with httpx.AsyncClient(
        transport=transport, base_url="https://controller.test:8360", headers={"authorization": f"Bearer {token}"}
    ) as http:
        for path, query in list_questions(ids):
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                answer = await http.get(f"/api/v1{path}", params=query)
                times.append((time.perf_counter() - began) * 1000)
                if answer.status_code != 200:
                    raise BenchError(f"{path} {query}: {answer.status_code} {answer.text[:200]}")
            found[f"{path} {query or ''}".replace(ids["account"], "ID").replace(ids["client"], "ID")] = percentile(
                times, 0.95
            )
    return found


async def measure(url: str, folder: Path, share: float) -> dict[str, float]:
    """On one database."""
    await runner.upgrade(url)
    controller = make_controller(url, folder)
    try:
        ids = await fill(controller.database, share)
        await audit.fill(
            controller.database, Checkpoints(controller.database, controller.fleet.keys.signer), int(share * ENTRIES)
        )
        await _add_admin(controller)
        async with controller.database.write() as session:
            await session.execute(text("ANALYZE"))
        return await ask(controller, ids)
    finally:
        await controller.database.close()


def run(options: Options) -> list[Measurement]:
    """SQLite, then PostgreSQL."""
    share = 0.01 if options.is_quick else 1.0
    folders = {name: options.work_dir / name for name in ("lite", "postgresql")}
    for folder in folders.values():
        folder.mkdir()
    lite = asyncio.run(measure(f"sqlite+aiosqlite:///{options.work_dir / 'size.db'}", folders["lite"], share))
    with contextlib.ExitStack() as stack:
        url = stack.enter_context(durable_postgres())
        postgresql = asyncio.run(measure(url, folders["postgresql"], share))
    return [_row(SQLITE, lite), _row(POSTGRESQL, postgresql)]


def _row(name: str, found: Mapping[str, float]) -> Measurement:
    ordered = sorted(found, key=lambda question: found[question], reverse=True)
    note = f"of {len(found)} questions; slowest: " + ", ".join(f"{one} {found[one]:.0f}" for one in ordered[:4])
    return judge(name, found[ordered[0]], "ms", bar=BAR_MS if name == POSTGRESQL else float("inf"), note=note)


BENCHMARK = Benchmark(
    name="size",
    bars=((SQLITE, "printed"), (POSTGRESQL, f"at most {BAR_MS:g} ms")),
    run=run,
    limit_seconds=1500,
)

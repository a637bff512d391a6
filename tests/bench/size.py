"""A large hoster's controller: how long everything takes that a screen may ask for.

10,000 accounts of 200 resellers and 2,000 clients with all that years leave beside them (tests.bench.hoster) and 500,000
audit entries; every question of tests.bench.questions as an administrator, a reseller and a client, over the real
application in process. SQLite is printed, PostgreSQL has the bar.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx

from controller.api.openapi import build_document
from controller.bootstrap import Controller
from controller.core.audit.checkpoints import Checkpoints
from controller.core.context import Role
from controller.db.migrations import runner
from controller.serve import tune_process
from tests.bench import audit, hoster
from tests.bench.framework import BenchError, Benchmark, Measurement, Options, judge, percentile
from tests.bench.postgres import durable_postgres
from tests.bench.questions import list_questions
from tests.integration.conftest import make_controller

ENTRIES: Final = 500_000
ROUNDS: Final = 20
WARM_UP: Final = 2
"""Not counted: a controller prepares each statement once in its life."""
BAR_MS: Final = 50.0
POSTGRESQL: Final = "10,000 accounts: the slowest list, search or dashboard, p95, PostgreSQL"
SQLITE: Final = "10,000 accounts: the slowest list, search or dashboard, p95, SQLite"
NOT_THEIRS: Final = frozenset({403, 404})


async def ask(controller: Controller, large: hoster.Hoster) -> dict[str, float]:
    """Question to its 95th percentile in milliseconds."""
    questions = list_questions(build_document(controller.app.litestar), large.ids)
    found: dict[str, float] = {}
    transport = httpx.ASGITransport(app=controller.app.asgi)
    async with httpx.AsyncClient(transport=transport, base_url="https://controller.test:8360") as http:
        await _lift_limits(http, large)
        for role, secret in large.secrets.items():
            headers = {"authorization": f"Bearer {secret}"}
            for question in questions:
                times = []
                for _ in range(WARM_UP + ROUNDS):
                    began = time.perf_counter()
                    answer = await http.get(question.path, params=question.query, headers=headers)
                    times.append((time.perf_counter() - began) * 1000)
                    if answer.status_code in NOT_THEIRS and role is not Role.ROOT:
                        break
                    if answer.status_code != 200:
                        raise BenchError(f"{role.value} {question}: {answer.status_code} {answer.text[:200]}")
                else:
                    found[f"{role.value} {question}"] = percentile(times[WARM_UP:], 0.95)
    return found


async def _lift_limits(http: httpx.AsyncClient, large: hoster.Hoster) -> None:
    """No rate stands in the way."""
    headers = {"authorization": f"Bearer {large.secrets[Role.ROOT]}"}
    rates = {"user": None, "token": None, "anonymous": None, "tenant": None}
    answer = await http.patch("/api/v1/rate-limits", json=rates, headers=headers)
    if answer.status_code != 200:
        raise BenchError(f"the rate limits stay: {answer.text[:200]}")


async def measure(url: str, folder: Path, share: float) -> dict[str, float]:
    """On one database, in a process that is tuned as one that serves is."""
    await runner.upgrade(url)
    controller = make_controller(url, folder)
    tune_process()
    try:
        checkpoints = Checkpoints(controller.database, controller.fleet.keys.signer)
        await audit.fill(controller.database, checkpoints, int(share * ENTRIES))
        return await ask(controller, await hoster.fill(controller.database, share))
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
    note = f"of {len(found)} questions; slowest in ms: " + ", ".join(f"{one} {found[one]:.0f}" for one in ordered[:4])
    return judge(name, found[ordered[0]], "ms", bar=BAR_MS if name == POSTGRESQL else float("inf"), note=note)


BENCHMARK = Benchmark(
    name="size",
    bars=((SQLITE, "printed"), (POSTGRESQL, f"at most {BAR_MS:g} ms")),
    run=run,
    limit_seconds=1500,
)

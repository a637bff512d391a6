"""What a request of the API costs: against FastAPI doing the same work, and against a bare handler with the same rows.

Ours is `wcpd run` as it is installed, with everything that a request passes: identity, networks, rate limits, figures, access
log, headers. All are served by uvicorn over TLS with the same settings, one process each, and take turns in one run.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import insert

from controller.core.accounts.models import Account, AccountState, ObservedStatus
from controller.core.clients.models import Client
from controller.db.base import new_id, utc_now
from controller.db.engine import Database
from tests.bench.client import BenchClient, connected
from tests.bench.framework import BenchError, Benchmark, Measurement, Options
from tests.bench.postgres import durable_postgres
from tests.bench.serving import ROOT, STOP_SECONDS, Bench, serving
from tests.e2e.fleet import free_port

SMALL = "authenticated small GETs, one worker, against FastAPI"
LISTS = {
    "sqlite": "a list of 100 of 10,000 accounts, SQLite, against a bare handler",
    "postgresql": "a list of 100 of 10,000 accounts, PostgreSQL, against a bare handler",
}
SMALL_TIMES = 1.0
LIST_TIMES = 0.5
ACCOUNTS = 10_000
CONNECTIONS = 8
START_SECONDS = 60.0
ME, LIST = "/auth/me", "/accounts?limit=100"


@contextmanager
def peer(name: str, bench: Bench, database_url: str) -> Iterator[int]:
    """The port of a peer that serves until the block ends, with the controller's own certificate."""
    port = free_port()
    pki = bench.controller.data_dir / "pki"
    argv = [sys.executable, "-m", "tests.bench.api_peer", name, str(port), database_url]
    process = subprocess.Popen([*argv, str(pki / "server.pem"), str(pki / "server.key")], cwd=ROOT)
    try:
        yield port
    finally:
        process.terminate()
        try:
            process.wait(timeout=STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def prepare(bench: Bench) -> str:
    """No limit stands in the way; the secret of an API token."""
    async with connected(bench.port, bench.ca_file, bench.token, connections=1) as client:
        await client.call("PATCH", "/rate-limits", {"user": None, "token": None, "anonymous": None})
        made = await client.call("POST", "/tokens", {"name": "bench", "scopes": ["*"]})
    return str(made["secret"])


async def add_accounts(bench: Bench, token: str, database_url: str, count: int) -> None:
    """Rows as they are after a node said that all is well."""
    async with connected(bench.port, bench.ca_file, token, connections=1) as client:
        package = await client.call("POST", "/packages", {"name": "Bench"})
    database = Database(database_url)
    now = utc_now()
    try:
        async with database.write() as session:
            client_row = Client(name="Bench", email="bench@example.com")
            session.add(client_row)
            await session.flush()
            for start in range(0, count, 500):
                rows: list[dict[str, Any]] = [
                    {
                        "id": new_id(),
                        "name": f"acc{number}",
                        "client_id": client_row.id,
                        "package_id": package["id"],
                        "node_id": bench.stock.node_ids[0],
                        "uid": 20_000 + number,
                        "state": AccountState.ACTIVE,
                        "observed_status": ObservedStatus.OK,
                        "observed_at": now,
                    }
                    for number in range(start, min(start + 500, count))
                ]
                await session.execute(insert(Account), rows)
    finally:
        await database.close()


async def compare_rates(bench: Bench, port: int, token: str, path: str, options: Options) -> tuple[float, float]:
    """Requests per second of ours and of the peer's: the median of short turns, one after the other."""
    ours: list[float] = []
    theirs: list[float] = []
    seconds = 1.5 if not options.is_quick else 0.5
    async with (
        connected(bench.port, bench.ca_file, token, connections=CONNECTIONS) as own,
        connected(port, bench.ca_file, token, connections=CONNECTIONS) as other,
    ):
        await _wait_ready(other, path)
        if _shape(await own.call("GET", path)) != _shape(await other.call("GET", path)):
            raise BenchError(f"{path}: the two do not answer the same")
        for client in (own, other):
            await _rate(client, path, seconds)
        for _ in range(options.pick(15, 3)):
            ours.append(await _rate(own, path, seconds))
            theirs.append(await _rate(other, path, seconds))
    return statistics.median(ours), statistics.median(theirs)


def _shape(answer: dict[str, Any]) -> tuple[Any, ...]:
    """What must be the same in both answers."""
    items = answer.get("items")
    return (sorted(answer),) if items is None else (len(items), [sorted(item) for item in items])


async def _wait_ready(client: BenchClient, path: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            await client.call("GET", path)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)
        else:
            return


async def _rate(client: BenchClient, path: str, seconds: float) -> float:
    done = 0
    began = time.perf_counter()

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() - began < seconds:
            await client.call("GET", path)
            done += 1

    await asyncio.gather(*(ask() for _ in range(CONNECTIONS)))
    return done / (time.perf_counter() - began)


def _judge(name: str, ours: float, theirs: float, *, times: float) -> Measurement:
    ratio = ours / theirs
    note = f"{CONNECTIONS} connections at once, median of short turns, over TLS"
    bar = f"at least {times:g} times as many"
    return Measurement(
        name=name, ours=ours, peer=theirs, unit="/s", ratio=ratio, bar=bar, met=ratio >= times, note=note
    )


def _measure(options: Options, kind: str, database_url: str) -> Iterator[Measurement]:
    with serving(1, database_url=database_url) as bench:
        url = database_url or f"sqlite+aiosqlite:///{bench.controller.data_dir / 'controller.db'}"
        token = asyncio.run(prepare(bench))
        if kind == "sqlite":
            with peer("fastapi", bench, url) as port:
                yield _judge(SMALL, *asyncio.run(compare_rates(bench, port, token, ME, options)), times=SMALL_TIMES)
        asyncio.run(add_accounts(bench, token, url, options.pick(ACCOUNTS, 500)))
        with peer("litestar", bench, url) as port:
            rates = asyncio.run(compare_rates(bench, port, token, LIST, options))
            yield _judge(LISTS[kind], *rates, times=LIST_TIMES)


def run(options: Options) -> list[Measurement]:
    """SQLite, then PostgreSQL."""
    rows = list(_measure(options, "sqlite", ""))
    with contextlib.ExitStack() as stack:
        rows += _measure(options, "postgresql", stack.enter_context(durable_postgres()))
    return rows


BENCHMARK = Benchmark(
    name="api",
    bars=(
        (SMALL, f"at least {SMALL_TIMES:g} times as many"),
        *((name, f"at least {LIST_TIMES:g} times as many") for name in LISTS.values()),
    ),
    run=run,
    limit_seconds=600,
)

"""Processes come and go while work goes on: every accepted request ends in exactly one final state, done once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from pathlib import Path
from typing import Self

import httpx
from sqlalchemy import select

from controller.jobs.models import Job, JobTransition
from controller.jobs.states import FINAL, JobState
from tests.faults.processes import Zygote
from tests.integration.redis_server import RedisServer
from tests.integration.scale.deployment import Deployment, deployment, read_journal_counts

NODES = 6


class Load:
    """Asks for jobs without a pause, as clients do that try again when they get no answer."""

    def __init__(self, made: Deployment, nodes: list[str]) -> None:
        self.made = made
        self.nodes = nodes
        self.accepted: list[str] = []
        self.refused: Counter[int] = Counter()
        self.unanswered = 0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        number = 0
        while True:
            number += 1
            try:
                answer = await self.made.ask("POST", f"/nodes/{self.nodes[number % len(self.nodes)]}/ping")
            except httpx.HTTPError:
                self.unanswered += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 202:
                self.accepted += [job["id"] for job in answer.json()["jobs"]]
            else:
                self.refused[answer.status_code] += 1
            await asyncio.sleep(0.02)

    async def wait_more(self, count: int) -> None:
        """Until so many more were accepted."""
        goal = len(self.accepted) + count
        async with asyncio.timeout(60):
            while len(self.accepted) < goal:  # noqa: ASYNC110 - requests over HTTP
                await asyncio.sleep(0.05)


async def check_everything_ended_once(made: Deployment, accepted: list[str]) -> None:
    """I1 and I2 over everything that was ever asked for."""
    async with asyncio.timeout(120):
        while await _count_unfinished(made):  # noqa: ASYNC110 - it is asked of the database
            await asyncio.sleep(0.2)
    async with made.database.read() as session:
        jobs = {job.id: job for job in (await session.scalars(select(Job))).all()}
        arrows = (await session.execute(select(JobTransition.job_id, JobTransition.to_state))).all()
    ends = Counter(job_id for job_id, state in arrows if state in FINAL)
    wrong = {job.id: (job.state, job.attempts, ends[job.id]) for job in jobs.values() if ends[job.id] != 1}
    assert wrong == {}, made.describe()
    assert set(accepted) <= jobs.keys()
    states = Counter(job.state for job in jobs.values())
    assert states == {JobState.SUCCEEDED: len(jobs)}, made.describe()
    assert {job.attempts for job in jobs.values()} == {1}
    # What a node has in its journal it has done once; each row of ours is one row there, and nothing else is.
    assert sum(read_journal_counts(made.folder).values()) == len(jobs)


async def _count_unfinished(made: Deployment) -> int:
    async with made.database.read() as session:
        found = await session.scalars(select(Job.id).where(Job.state.not_in(FINAL)))
        return len(found.all())


async def test_rolling_restart_of_every_process_loses_and_doubles_nothing(
    zygote: Zygote, tmp_path: Path, postgres_url: str, redis_server: RedisServer
) -> None:
    settings = {"redis_url": redis_server.url, "broker": "redis", "redis_prefix": "rolling"}
    async with deployment(zygote, tmp_path, postgres_url, **settings) as made:
        await made.start_signer()
        for role in ("api", "gateway", "worker"):
            for instance in ("1", "2"):
                await made.start(role, instance)
        await made.start_nodes(NODES)
        nodes = [node["id"] for node in await made.wait_nodes(NODES)]
        async with Load(made, nodes) as load:
            await load.wait_more(10)
            for name in list(made.members):
                await made.restart(name, kills=name.endswith("2"))
                await load.wait_more(10)
            for kills in (False, True):
                await made.restart_signer(kills=kills)
                await load.wait_more(10)
            redis_server.flush()
            await load.wait_more(10)

        await made.wait_nodes(NODES)
        await check_everything_ended_once(made, load.accepted)
        assert load.refused.keys() <= {503}, load.refused
        await made.wait_processes("api", "api", "gateway", "gateway", "worker", "worker")


async def test_two_whole_controllers_on_one_database_share_the_fleet(
    zygote: Zygote, tmp_path: Path, postgres_url: str
) -> None:
    async with deployment(zygote, tmp_path, postgres_url) as made:
        await made.start("run", "1")
        await made.start("run", "2")
        await made.start_nodes(NODES)
        nodes = [node["id"] for node in await made.wait_nodes(NODES)]
        async with Load(made, nodes) as load:
            await load.wait_more(10)
            await made.restart("run-1", kills=True)
            await load.wait_more(10)
            await made.restart("run-2")
            await load.wait_more(10)

        await made.wait_nodes(NODES)
        await check_everything_ended_once(made, load.accepted)

"""Pings of many nodes at once: a signed no-op to each, and who answered it in time.

A ping changes nothing, here or there, so there is no audit entry, and a dry run only checks; the jobs tell who asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import select

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.db.prepared import Prepared, any_of
from controller.fleet.models import Node, NodeState
from controller.fleet.ports import Asker
from controller.jobs.engine import JobEngine
from controller.jobs.queue import JobRequest, request_plain_jobs
from controller.jobs.rows import JobRow, view_of
from controller.jobs.states import JobState
from controller.jobs.views import JobView
from shared.errors import ConflictError, NotFoundError
from shared.protocol.job import ACTION_NOOP

NODES_MAX: Final = 500
WAIT_SECONDS_MAX: Final = 60.0
_LANE: Final = f"fleet/{ACTION_NOOP.partition('@')[0]}"
_NODES: Final = Prepared(select(Node.id, Node.name, Node.state).where(any_of(Node.id, "ids")))


class PingRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to ping, and how long to wait for them."""

    node_ids: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=36)], ...],
        Meta(min_length=1, max_length=NODES_MAX, description="Ids of nodes.", examples=[["0192f0c2-..."]]),
    ]
    wait_seconds: Annotated[
        float, Meta(ge=0, le=WAIT_SECONDS_MAX, description="How long to wait for the last of them; 0: not at all.")
    ] = 10.0


class PingView(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the ping of one node."""

    node_id: str
    node_name: str
    job_id: str
    state: JobState
    has_answered: Annotated[bool, Meta(description="The node's executor did it, and said so within the time.")]


class PingAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One for each node, in the order they were named."""

    items: tuple[PingView, ...]
    jobs: tuple[JobView, ...]
    """In the same order, as they are now."""


@dataclass(frozen=True, slots=True)
class Pings:
    """The use case."""

    database: Database
    engine: JobEngine
    clock: Callable[[], datetime] = utc_now

    async def check(self, asker: Asker, request: PingRequest) -> None:
        """What `ping` checks, and nothing else.

        Raises:
            ForbiddenError, NotFoundError, ConflictError
        """
        asker.require("nodes", "write")
        _require_active(request.node_ids, await self.database.glance(_NODES, ids=list(request.node_ids)))

    async def ping(self, asker: Asker, request_id: str, request: PingRequest) -> PingAnswer:
        """Prove the whole way to the executors of these nodes and back.

        Raises:
            ForbiddenError
            NotFoundError: One of the nodes is not there; none was pinged.
            ConflictError: One of them is not active; none was pinged.
        """
        asker.require("nodes", "write")
        node_ids = tuple(dict.fromkeys(request.node_ids))
        now = self.clock()
        async with self.database.hot() as driver:
            names = _require_active(node_ids, await _NODES.fetch(driver, ids=node_ids))
            requests = [_request(node_id, names[node_id], asker, request_id) for node_id in node_ids]
            job_ids = await request_plain_jobs(driver, requests, now=now)
        self.engine.notify()
        jobs = await self.engine.wait_new(job_ids, request.wait_seconds)
        return PingAnswer(
            items=tuple(_view(row, names[row.node_id]) for row in jobs), jobs=tuple(view_of(row) for row in jobs)
        )


def _view(row: JobRow, name: str) -> PingView:
    has_answered = row.state is JobState.SUCCEEDED
    return PingView(node_id=row.node_id, node_name=name, job_id=row.id, state=row.state, has_answered=has_answered)


def _require_active(node_ids: Sequence[str], rows: Sequence[tuple[str, str, NodeState]]) -> dict[str, str]:
    known = {row[0]: row for row in rows}
    for node_id in node_ids:
        if node_id not in known:
            raise NotFoundError(f"there is no node {node_id[:80]!r}")
        if known[node_id][2] is not NodeState.ACTIVE:
            raise ConflictError(f"{known[node_id][1]} is not active", hint="See wcp360 nodes show NODE.")
    return {node_id: row[1] for node_id, row in known.items()}


def _request(node_id: str, name: str, asker: Asker, request_id: str) -> JobRequest:
    return JobRequest(
        node_id=node_id,
        action=ACTION_NOOP,
        args=b"",
        resource_key=_LANE,
        actor=asker.reference,
        request_id=request_id[:64],
        label=f"{name}: ping",
        ttl_seconds=3600,
    )

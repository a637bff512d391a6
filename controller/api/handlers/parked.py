"""Parked resources over HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta

from controller.core.context import Actor
from controller.core.http import (
    API_ROOT,
    DRY_RUN_RESPONSES,
    Cursor,
    DryRun,
    Limit,
    OfAccount,
    PathId,
    answer_accepted,
    answer_done,
)
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.parked import service
from controller.core.parked.service import BULK_MAX, Parked, ParkedFilter, ParkedPage, ParkedView
from controller.jobs.views import JobView
from shared.errors import FleetError, InvalidInputError

_TAGS = ["parked"]


class ParkedChange(msgspec.Struct, frozen=True, kw_only=True):
    """A parked resource, and the job that tries it again."""

    resource: ParkedView
    jobs: tuple[JobView, ...]


class ParkedBulk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which parked resources; one of the three is needed."""

    ids: Annotated[tuple[str, ...], Meta(max_length=BULK_MAX, description="These.")] = ()
    node_id: Annotated[str | None, Meta(description="All of this node.")] = None
    account_id: Annotated[str | None, Meta(description="All of this account.")] = None


class BulkItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one of many."""

    id: str
    name: str
    is_done: bool
    job_ids: tuple[str, ...]
    error_code: str | None
    error_message: str | None


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line for each; those that failed have changed nothing."""

    done: int
    failed: int
    items: tuple[BulkItem, ...]
    jobs: tuple[JobView, ...]
    next_cursor: str | None = None


UseCase = Callable[[FleetContext, str], Awaitable[tuple[str, object]]]


def answer_bulk(result: BulkResult) -> Response[BulkResult]:
    """202, with the address of the first job."""
    headers = {"Location": f"{API_ROOT}/jobs/{result.jobs[0].id}"} if result.jobs else {}
    return Response(result, status_code=202, headers=headers)


async def run_bulk(
    operations: Operations, actor: Actor, request_id: str, ids: list[str], use_case: UseCase
) -> BulkResult:
    """Each id in a transaction of its own: one that fails stops no other.

    Args:
        operations: Runs them.
        actor: Who asks.
        request_id: Of the whole request.
        ids: What the use case gets, one after the other.
        use_case: Returns a name for people, and whatever else it likes.
    """
    items: list[BulkItem] = []
    jobs: list[JobView] = []
    for row_id in ids:

        async def one(ctx: FleetContext, row_id: str = row_id) -> str:
            return (await use_case(ctx, row_id))[0]

        try:
            outcome = await operations.change(actor, request_id, one)
        except FleetError as error:
            items.append(_failed(row_id, error))
            continue
        jobs += outcome.jobs
        job_ids = tuple(job.id for job in outcome.jobs)
        items.append(
            BulkItem(
                id=row_id, name=outcome.resource, is_done=True, job_ids=job_ids, error_code=None, error_message=None
            )
        )
    done = sum(item.is_done for item in items)
    return BulkResult(done=done, failed=len(items) - done, items=tuple(items), jobs=tuple(jobs))


def _failed(row_id: str, error: FleetError) -> BulkItem:
    return BulkItem(id=row_id, name="", is_done=False, job_ids=(), error_code=error.code, error_message=error.message)


@get("/parked", operation_id="list-parked", tags=_TAGS, summary="List parked resources")
async def list_parked(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    node_id: Annotated[str | None, QueryParameter(description="Only on this node.")] = None,
    account_id: OfAccount = None,
    kind: Annotated[
        str | None, QueryParameter(description="Only of this kind: site, account, php_pool, module.")
    ] = None,
) -> ParkedPage:
    """Show what nodes could not bring about, why, and since when; all of it stays as it was before."""
    page, wanted = (
        PageRequest(limit=limit, cursor=cursor),
        ParkedFilter(node_id=node_id, account_id=account_id, kind=kind),
    )
    return await operations.read(actor, request_id, lambda ctx: service.list_parked(ctx, page, wanted))


@get("/parked/{parked_id:str}", operation_id="show-parked", tags=_TAGS, summary="Show a parked resource")
async def show_parked(
    *,
    parked_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> ParkedView:
    """Show one, with the command and the change that failed."""

    async def query(ctx: FleetContext) -> ParkedView:
        ctx.actor.require("parked", "read")
        return await service.view_parked(ctx.session, await service.get_parked(ctx.session, parked_id))

    return await operations.read(actor, request_id, query)


@post(
    "/parked/{parked_id:str}/retry",
    operation_id="retry-parked",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Retry a parked resource",
)
async def retry_parked(
    *,
    parked_id: PathId,
    parked: NamedDependency[Parked],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ParkedChange]:
    """Try it again as it is wanted. To change it and try again in one step, change the resource itself."""
    outcome = await operations.change(actor, request_id, lambda ctx: parked.retry(ctx, parked_id), is_dry_run=dry_run)
    return answer_accepted(outcome, lambda view, jobs: ParkedChange(resource=view, jobs=jobs))


@post(
    "/parked/{parked_id:str}/discard",
    operation_id="discard-parked",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Discard the change of a parked resource",
)
async def discard_parked(
    *,
    parked_id: PathId,
    parked: NamedDependency[Parked],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[ParkedChange]:
    """Give the change up: what the node has is wanted again; what it never had is deleted."""
    outcome = await operations.change(actor, request_id, lambda ctx: parked.discard(ctx, parked_id), is_dry_run=dry_run)
    return answer_accepted(outcome, lambda view, jobs: ParkedChange(resource=view, jobs=jobs))


@post(
    "/parked/retry",
    operation_id="bulk-retry-parked",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Retry many parked resources",
)
async def bulk_retry_parked(
    *,
    data: JSONBody[ParkedBulk],
    parked: NamedDependency[Parked],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[BulkResult]:
    """Try all of a node or an account again, or those that are named; each is answered for itself."""
    if not (data.ids or data.node_id or data.account_id):
        raise InvalidInputError("name ids, a node or an account", field="ids")

    async def find(ctx: FleetContext) -> list[str]:
        ctx.actor.require("parked", "write")
        if data.ids:
            return list(dict.fromkeys(data.ids))
        return await service.list_ids(ctx.session, ParkedFilter(node_id=data.node_id, account_id=data.account_id))

    async def retry(ctx: FleetContext, row_id: str) -> tuple[str, object]:
        view = await parked.retry(ctx, row_id)
        return view.key, view

    ids = await operations.read(actor, request_id, find)
    if dry_run:

        async def all_at_once(ctx: FleetContext) -> None:
            for row_id in ids:
                await parked.retry(ctx, row_id)

        return answer_done(await operations.change(actor, request_id, all_at_once, is_dry_run=True), status=200)
    return answer_bulk(await run_bulk(operations, actor, request_id, ids, retry))


ROUTES = (list_parked, show_parked, retry_parked, discard_parked, bulk_retry_parked)

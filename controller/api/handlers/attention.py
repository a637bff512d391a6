"""What needs attention, over HTTP."""

from __future__ import annotations

from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import Meta

from controller.api.handlers.parked import BulkResult, answer_bulk, run_bulk
from controller.core.attention import service
from controller.core.attention.items import AttentionItem
from controller.core.attention.overview import AttentionFilter
from controller.core.attention.service import AttentionPage
from controller.core.audit.chain import record
from controller.core.context import Actor, Change
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, OfAccount, answer_done
from controller.core.operations import FleetContext, Operations
from controller.core.paging import DEFAULT_LIMIT
from controller.core.parked.service import BULK_MAX, Parked
from controller.jobs.commands import get_job, retry_job
from shared.errors import ConflictError, InvalidInputError

_TAGS = ["attention"]

ItemId = Annotated[str, PathParameter(description="The id, as the list shows it: kind.ID.")]


class AttentionDismiss(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why an item is put aside."""

    note: Annotated[str, Meta(min_length=1, max_length=500, examples=["Known; the client moves out on Friday."])]


class AttentionRetry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which items to try again: jobs and parked resources."""

    ids: Annotated[tuple[str, ...], Meta(min_length=1, max_length=BULK_MAX, examples=[["job.ID", "parked.ID"]])]


@get("/attention", operation_id="list-attention", tags=_TAGS, summary="List what needs attention")
async def list_attention(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    kind: Annotated[
        str | None, QueryParameter(description="Only of this kind: job, parked, node, approval, drift, webhook.")
    ] = None,
    node_id: Annotated[str | None, QueryParameter(description="Only of this node.")] = None,
    account_id: OfAccount = None,
    with_dismissed: Annotated[bool, QueryParameter(description="Also what somebody put aside.")] = False,
) -> AttentionPage:
    """Show everything that a person should look at, with what may be done about it; the critical first."""
    wanted = AttentionFilter(kind=kind, node_id=node_id, account_id=account_id, with_dismissed=with_dismissed)
    return await operations.read(
        actor, request_id, lambda ctx: service.list_attention(ctx, wanted, limit=limit, cursor=cursor)
    )


@post(
    "/attention/{item_id:str}/dismiss",
    operation_id="dismiss-attention",
    tags=_TAGS,
    status_code=200,
    summary="Dismiss an item",
)
async def dismiss(
    *,
    item_id: ItemId,
    data: JSONBody[AttentionDismiss],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AttentionItem]:
    """Leave an item out of the list, with a note, as long as it says what it says now."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.dismiss(ctx, item_id, data.note), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@post(
    "/attention/{item_id:str}/undismiss",
    operation_id="undismiss-attention",
    tags=_TAGS,
    status_code=200,
    summary="Show a dismissed item again",
)
async def undismiss(
    *,
    item_id: ItemId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[AttentionItem]:
    """Take the note off an item."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.undismiss(ctx, item_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@post(
    "/attention/retry",
    operation_id="retry-attention",
    tags=_TAGS,
    status_code=202,
    responses=DRY_RUN_RESPONSES,
    summary="Retry many items",
)
async def retry_many(
    *,
    data: JSONBody[AttentionRetry],
    parked: NamedDependency[Parked],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[BulkResult]:
    """Try failed jobs and parked resources again; each is answered for itself, and none stops another."""

    async def retry(ctx: FleetContext, item_id: str) -> tuple[str, object]:
        kind, _, row_id = item_id.partition(".")
        if kind == "parked":
            view = await parked.retry(ctx, row_id)
            return view.key, view
        if kind == "job":
            return await _retry_job(ctx, row_id)
        raise ConflictError(f"an item of the kind {kind[:40]!r} cannot be tried again", hint="See its own actions.")

    async def require_allowed(ctx: FleetContext) -> None:
        ctx.actor.require("attention", "write")

    await operations.read(actor, request_id, require_allowed)
    ids = list(dict.fromkeys(data.ids))
    if any("." not in item_id for item_id in ids):
        raise InvalidInputError("an id of the list is kind.ID", field="ids")
    if dry_run:

        async def all_at_once(ctx: FleetContext) -> None:
            for item_id in ids:
                await retry(ctx, item_id)

        return answer_done(await operations.change(actor, request_id, all_at_once, is_dry_run=True), status=200)
    return answer_bulk(await run_bulk(operations, actor, request_id, ids, retry))


async def _retry_job(ctx: FleetContext, job_id: str) -> tuple[str, object]:
    ctx.actor.require("jobs", "write")
    new_id = await retry_job(ctx.session, job_id, actor=ctx.actor.reference, request_id=ctx.request_id, now=ctx.now)
    ctx.job_ids.append(new_id)
    job = await get_job(ctx.session, new_id)
    after = {"state": job.state.value, "label": job.label, "retry_of": job.retry_of}
    record(ctx, Change(action="job.retry", target=f"job/{job.id}", target_name=job.label, after=after))
    return job.label, job


ROUTES = (list_attention, dismiss, undismiss, retry_many)

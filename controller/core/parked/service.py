"""Use cases of parked resources: look, try again, give the change up. Each kind of resource brings its own way out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Final, Protocol

import msgspec
from msgspec import Meta
from sqlalchemy import exists, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.context import Change
from controller.core.operations import FleetContext
from controller.core.paging import PageRequest, fetch_page
from controller.core.parked.models import ParkedResource
from controller.jobs.models import Job
from controller.jobs.states import UNFINISHED
from shared.errors import ConflictError, NotFoundError
from shared.protocol.job import ACTION_CONVERGE, JobMode

BULK_MAX: Final = 500


class ParkedView(msgspec.Struct, frozen=True, kw_only=True):
    """A resource that its node could not bring about, and left as it was."""

    id: str
    kind: Annotated[str, Meta(examples=["site", "account", "php", "module"])]
    key: Annotated[str, Meta(examples=["site/example.com"])]
    subject: Annotated[str, Meta(description="account/NAME, or node for the node's own modules.")]
    node_id: str
    account_id: str | None
    since: datetime
    code: Annotated[str, Meta(description="Of the error; docs/errors.md explains it.")]
    message: Annotated[str, Meta(description="The node's own words, for example nginx's.")]
    hint: str | None
    step: Annotated[str, Meta(description="The step that failed.")]
    command: Annotated[tuple[str, ...], Meta(description="The command that failed, word by word; empty: none did.")]
    output: Annotated[str, Meta(description="The end of what the command said.")]
    diff: Annotated[str, Meta(description="What the change would have made of the node's files.")]
    job_id: Annotated[str, Meta(description="The job that parked it; `wcp360 jobs explain` tells all of it.")]
    is_retrying: Annotated[bool, Meta(description="A newer change of it is on its way already.")]


class ParkedPage(msgspec.Struct, frozen=True, kw_only=True):
    """Parked resources, newest first."""

    items: tuple[ParkedView, ...]
    next_cursor: str | None


class ParkedKind(Protocol):
    """The way out for one kind of resource."""

    async def retry(self, ctx: FleetContext, row: ParkedResource) -> None:
        """Try again what is wanted. Raises whatever the owner's use case raises."""
        ...

    async def discard(self, ctx: FleetContext, row: ParkedResource) -> None:
        """Want again what the node has.

        Raises:
            ConflictError: What the node has cannot be told any more (`not_discardable`).
        """
        ...


class ParkedFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which are wanted; None: all."""

    node_id: str | None = None
    account_id: str | None = None
    kind: str | None = None


class Parked:
    """Bootstrap builds one with the kinds that there are."""

    def __init__(self, kinds: Mapping[str, ParkedKind]) -> None:
        self._kinds = dict(kinds)

    async def retry(self, ctx: FleetContext, row_id: str) -> ParkedView:
        """Try the resource again as it is wanted.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: Its owner does not allow it now.
        """
        ctx.actor.require("parked", "write")
        row = await get_parked(ctx.session, row_id)
        await self._kind(row).retry(ctx, row)
        _note(ctx, "parked.retry", row)
        return await view_parked(ctx.session, row)

    async def discard(self, ctx: FleetContext, row_id: str) -> ParkedView:
        """Give the change up: what the node has is wanted again.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: It cannot be given up, or not now.
        """
        ctx.actor.require("parked", "write")
        row = await get_parked(ctx.session, row_id)
        await self._kind(row).discard(ctx, row)
        _note(ctx, "parked.discard", row)
        return await view_parked(ctx.session, row)

    def _kind(self, row: ParkedResource) -> ParkedKind:
        kind = self._kinds.get(row.kind) or self._kinds.get(row.subject.partition("/")[0])
        if kind is None:
            raise ConflictError(f"nothing is known of {row.key}", hint="Converge its account or node again.")
        return kind


async def list_parked(ctx: FleetContext, page: PageRequest, wanted: ParkedFilter) -> ParkedPage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("parked", "read")
    statement = select(ParkedResource)
    for name, value in msgspec.structs.asdict(wanted).items():
        if value is not None:
            statement = statement.where(getattr(ParkedResource, name) == value[:300])
    found = await fetch_page(ctx.session, statement, page)
    retrying = await _list_retrying(ctx.session, found.rows)
    items = tuple(_view(row, is_retrying=row.id in retrying) for row in found.rows)
    return ParkedPage(items=items, next_cursor=found.next_cursor)


async def list_ids(session: AsyncSession, wanted: ParkedFilter) -> list[str]:
    """Ids of all that fit, the oldest first; BULK_MAX at most."""
    statement = select(ParkedResource.id).order_by(ParkedResource.id).limit(BULK_MAX)
    for name, value in msgspec.structs.asdict(wanted).items():
        if value is not None:
            statement = statement.where(getattr(ParkedResource, name) == value[:300])
    return list(await session.scalars(statement))


async def get_parked(session: AsyncSession, row_id: str) -> ParkedResource:
    """The row.

    Raises:
        NotFoundError: There is none.
    """
    row = await session.get(ParkedResource, row_id[:36])
    if row is None:
        raise NotFoundError(f"nothing with the id {row_id[:80]!r} is parked", hint="It may be in order by now.")
    return row


async def view_parked(session: AsyncSession, row: ParkedResource) -> ParkedView:
    """For the API."""
    return _view(row, is_retrying=bool(await _list_retrying(session, [row])))


async def _list_retrying(session: AsyncSession, rows: Sequence[ParkedResource]) -> frozenset[str]:
    """Ids of those that an unfinished job will try anew."""
    newer = exists().where(
        Job.node_id == ParkedResource.node_id,
        Job.resource_key == ParkedResource.subject,
        Job.action == ACTION_CONVERGE,
        Job.mode == JobMode.APPLY,
        Job.generation > ParkedResource.generation,
        Job.state.in_(UNFINISHED),
    )
    statement = select(ParkedResource.id).where(ParkedResource.id.in_([row.id for row in rows]), newer)
    return frozenset(await session.scalars(statement))


def _view(row: ParkedResource, *, is_retrying: bool) -> ParkedView:
    context: Mapping[str, Any] = row.context or {}
    return ParkedView(
        id=row.id,
        kind=row.kind,
        key=row.key,
        subject=row.subject,
        node_id=row.node_id,
        account_id=row.account_id,
        since=row.since,
        code=row.code,
        message=row.message,
        hint=row.hint,
        step=str(context.get("step", "")),
        command=tuple(context.get("argv", ())),
        output=str(context.get("stderr", "")),
        diff=row.diff,
        job_id=row.job_id,
        is_retrying=is_retrying,
    )


def _note(ctx: FleetContext, action: str, row: ParkedResource) -> None:
    after = {"subject": row.subject, "code": row.code, "message": row.message[:500]}
    target = f"node/{row.node_id}" if row.account_id is None else f"account/{row.account_id}"
    record(ctx, Change(action=action, target=target, target_name=row.key, after=after))

"""The same change of many things: each in a transaction of its own, so that one that fails leaves the others.

What all bulk requests share: how many at most, what is answered for each, and the dry run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol

import msgspec
from msgspec import Meta

from controller.core.context import Actor
from controller.core.operations import FleetContext, Operations
from controller.core.plan import PlanView
from controller.jobs.views import JobView
from shared.errors import FleetError, InvalidInputError

BULK_MAX: Final = 500
"""Things in one request: each is a transaction, and nobody waits for minutes for an answer."""


class BulkItem(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one account, or would."""

    account_id: str
    name: str
    is_done: Annotated[bool, Meta(description="In a dry run: it would be.")]
    job_ids: tuple[str, ...]
    plan: Annotated[PlanView | None, Meta(description="Only in a dry run.")]
    error_code: str | None
    error_message: str | None


class BulkResult(msgspec.Struct, frozen=True, kw_only=True):
    """One line for each account; those that failed have changed nothing, and stopped no other."""

    done: int
    failed: int
    items: tuple[BulkItem, ...]
    jobs: tuple[JobView, ...]
    next_cursor: str | None = None


class Named(Protocol):
    """What a change of one thing answers."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bulk:
    """One bulk request."""

    operations: Operations
    actor: Actor
    request_id: str
    is_dry_run: bool

    async def run(
        self, account_ids: Sequence[str], change: Callable[[FleetContext, str], Awaitable[Named]]
    ) -> BulkResult:
        """Change each by itself.

        Raises:
            InvalidInputError: One is named twice.
        """
        require_distinct(account_ids)
        items: list[BulkItem] = []
        jobs: list[JobView] = []
        for account_id in account_ids:
            item, own_jobs = await self._change_one(account_id, change)
            items.append(item)
            jobs += own_jobs
        done = sum(item.is_done for item in items)
        return BulkResult(done=done, failed=len(items) - done, items=tuple(items), jobs=tuple(jobs))

    async def _change_one(
        self, account_id: str, change: Callable[[FleetContext, str], Awaitable[Named]]
    ) -> tuple[BulkItem, tuple[JobView, ...]]:
        async def use_case(ctx: FleetContext) -> Any:
            return await change(ctx, account_id)

        try:
            outcome = await self.operations.change(self.actor, self.request_id, use_case, is_dry_run=self.is_dry_run)
        except FleetError as error:
            return _view_failure(account_id, error), ()
        item = BulkItem(
            account_id=account_id,
            name=outcome.resource.name,
            is_done=True,
            job_ids=tuple(job.id for job in outcome.jobs),
            plan=outcome.plan,
            error_code=None,
            error_message=None,
        )
        return item, outcome.jobs


def require_distinct(account_ids: Sequence[str], *, field: str = "account_ids") -> None:
    """Pass when each is named once.

    Raises:
        InvalidInputError: One is named twice.
    """
    if len(set(account_ids)) != len(account_ids):
        raise InvalidInputError("an account is named twice", field=field)


def _view_failure(account_id: str, error: FleetError) -> BulkItem:
    return BulkItem(
        account_id=account_id,
        name="",
        is_done=False,
        job_ids=(),
        plan=None,
        error_code=error.code,
        error_message=error.message,
    )

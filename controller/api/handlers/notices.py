"""What one was told of, over HTTP; for administrators, what became of the mails."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, Response, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from controller.api.guards import require_identity
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, answer_done
from controller.core.notices import service
from controller.core.notices.service import Notices
from controller.core.notices.views import (
    NoticeMailPage,
    NoticeMailView,
    NoticePage,
    NoticePreferenceList,
    NoticePreferenceUpdate,
    NoticePreferenceView,
    NoticeRead,
    NoticesRead,
    NoticeView,
)
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest

_TAGS = ["notices"]

KindName = Annotated[str, PathParameter(description="Name of the kind, as the list of preferences shows it.")]


@get("/notices", operation_id="list-notices", tags=_TAGS, summary="List what I was told of")
async def list_notices(
    *,
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    unread: Annotated[bool, QueryParameter(description="Only what one has not read.")] = False,
) -> NoticePage:
    """Show one's inbox, newest first, with how many are unread and what became of the mails."""
    identity = require_identity(request)
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(
        identity.actor, request_id, lambda ctx: service.list_notices(ctx, identity, page, is_unread=unread)
    )


@get("/notices/{notice_id:str}", operation_id="show-notice", tags=_TAGS, summary="Show a notice")
async def show_notice(
    notice_id: PathId,
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> NoticeView:
    """Show one notice; reading it does not mark it as read."""
    identity = require_identity(request)
    return await operations.read(identity.actor, request_id, lambda ctx: service.show_notice(ctx, identity, notice_id))


@post(
    "/notices/read",
    operation_id="read-notices",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Mark notices as read",
)
async def read_notices(
    *,
    data: JSONBody[NoticeRead],
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NoticesRead]:
    """Mark these, or all of one's own, as read."""
    identity = require_identity(request)
    outcome = await operations.change(
        identity.actor,
        request_id,
        lambda ctx: service.read_notices(ctx, identity, data.ids),
        is_dry_run=dry_run,
    )
    return answer_done(outcome, status=200)


@post(
    "/notices/test",
    operation_id="test-notices",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Send me a test mail",
)
async def send_test(
    *,
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    notices: NamedDependency[Notices],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NoticeView]:
    """Send a test to oneself, as every notice goes; show-notice then says what became of the mail."""
    identity = require_identity(request)
    outcome = await operations.change(
        identity.actor, request_id, lambda ctx: service.send_test(ctx, identity, notices), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@get(
    "/notice-preferences",
    operation_id="list-notice-preferences",
    tags=_TAGS,
    summary="List which notices I get by mail",
)
async def list_preferences(
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> NoticePreferenceList:
    """Show every kind that one may be told of, and whether it is mailed."""
    identity = require_identity(request)
    return await operations.read(identity.actor, request_id, lambda ctx: service.list_preferences(ctx, identity))


@patch(
    "/notice-preferences/{kind:str}",
    operation_id="update-notice-preference",
    tags=_TAGS,
    responses=DRY_RUN_RESPONSES,
    summary="Choose whether a kind of notice is mailed to me",
)
async def update_preference(
    *,
    kind: KindName,
    data: JSONBody[NoticePreferenceUpdate],
    request: Request[Any, Any, Any],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NoticePreferenceView]:
    """Have a kind mailed or not. What touches one's sign-in is always mailed."""
    identity = require_identity(request)
    outcome = await operations.change(
        identity.actor,
        request_id,
        lambda ctx: service.update_preference(ctx, identity, kind, is_mailed=data.is_mailed),
        is_dry_run=dry_run,
    )
    return answer_done(outcome, status=200)


@get("/notice-mails", operation_id="list-notice-mails", tags=_TAGS, summary="List mails of notices")
async def list_mails(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    wanted_state: Annotated[
        str | None, QueryParameter(name="state", description="Only these: pending, sent or dead.")
    ] = None,
    user_id: Annotated[str | None, QueryParameter(description="Only to this person.")] = None,
) -> NoticeMailPage:
    """Show the mails to everybody and what became of them, newest first; for administrators."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(
        actor, request_id, lambda ctx: service.list_mails(ctx, page, state=wanted_state, user_id=user_id)
    )


@post(
    "/notice-mails/{mail_id:str}/retry",
    operation_id="retry-notice-mail",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Send a dead mail again",
)
async def retry_mail(
    *,
    mail_id: PathId,
    operations: NamedDependency[Operations],
    notices: NamedDependency[Notices],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[NoticeMailView]:
    """Try a mail again that was refused, or that nobody took for days; for administrators."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.retry_mail(ctx, mail_id, notices), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


ROUTES = (
    list_notices,
    show_notice,
    read_notices,
    send_test,
    list_preferences,
    update_preference,
    list_mails,
    retry_mail,
)

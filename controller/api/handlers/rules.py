"""Rules over HTTP."""

from __future__ import annotations

from typing import Annotated

from litestar import Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, QueryParameter

from controller.core.context import Actor
from controller.core.events.catalogue import Catalogue
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, Search, answer_done
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest
from controller.core.rules import service, trial
from controller.core.rules.views import (
    RuleCreate,
    RulePage,
    RuleRunPage,
    RuleTrial,
    RuleTry,
    RuleUpdate,
    RuleView,
)

_TAGS = ["rules"]


@get("/rules", operation_id="list-rules", tags=_TAGS, summary="List rules")
async def list_rules(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
) -> RulePage:
    """Show what the controller does by itself when something happens, newest first."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    return await operations.read(actor, request_id, lambda ctx: service.list_rules(ctx, page))


@post(
    "/rules",
    operation_id="create-rule",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Create a rule",
)
async def create_rule(
    *,
    data: JSONBody[RuleCreate],
    catalogue: NamedDependency[Catalogue],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RuleView]:
    """Let the controller do something whenever an event fits; it does so as far as you may, and as long as you may."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.create_rule(ctx, data, catalogue), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


@get("/rules/{rule_id:str}", operation_id="show-rule", tags=_TAGS, summary="Show a rule")
async def show_rule(
    *,
    rule_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> RuleView:
    """Show one rule and whether it is paused."""
    return await operations.read(actor, request_id, lambda ctx: service.show_rule(ctx, rule_id))


@patch(
    "/rules/{rule_id:str}",
    operation_id="update-rule",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Change a rule",
)
async def update_rule(
    *,
    rule_id: PathId,
    data: JSONBody[RuleUpdate],
    catalogue: NamedDependency[Catalogue],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RuleView]:
    """Change events, conditions, action or rate; switch it on or off. You answer for it from now on."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.update_rule(ctx, rule_id, data, catalogue), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@delete(
    "/rules/{rule_id:str}",
    operation_id="delete-rule",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Delete a rule",
)
async def delete_rule(
    *,
    rule_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Remove a rule with its history; what it did stays done."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.delete_rule(ctx, rule_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


@post(
    "/rules/{rule_id:str}/resume",
    operation_id="resume-rule",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Resume a paused rule",
)
async def resume_rule(
    *,
    rule_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RuleView]:
    """Let it act again on what happens from now on. You answer for it."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.resume_rule(ctx, rule_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=200)


@post(
    "/rules/{rule_id:str}/try",
    operation_id="try-rule",
    tags=_TAGS,
    status_code=200,
    summary="Ask what a rule would do",
)
async def try_rule(
    *,
    rule_id: PathId,
    data: JSONBody[RuleTry],
    catalogue: NamedDependency[Catalogue],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> RuleTrial:
    """Ask about a past event: what each condition found, and what the action would change. Nothing is changed."""
    return await trial.try_rule(operations, actor, request_id, (rule_id, data, catalogue))


@get("/rules/{rule_id:str}/runs", operation_id="list-rule-runs", tags=_TAGS, summary="List what a rule did")
async def list_rule_runs(
    *,
    rule_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    in_state: Annotated[
        str | None, QueryParameter(name="state", description="Only pending, done, skipped, stopped or failed ones.")
    ] = None,
) -> RuleRunPage:
    """Show the events to which the rule applied, with what was done or why nothing, newest first."""
    page = PageRequest(limit=limit, cursor=cursor)
    return await operations.read(actor, request_id, lambda ctx: service.list_runs(ctx, rule_id, page, state=in_state))


ROUTES = (list_rules, create_rule, show_rule, update_rule, delete_rule, resume_rule, try_rule, list_rule_runs)

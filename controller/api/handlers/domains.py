"""Domains over HTTP."""

from __future__ import annotations

from litestar import Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.core.context import Actor
from controller.core.domains import service
from controller.core.domains.views import DomainCreate, DomainPage, DomainView
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, OfAccount, PathId, Search, answer_done
from controller.core.operations import Operations
from controller.core.paging import DEFAULT_LIMIT, PageRequest

_TAGS = ["domains"]


@get("/domains", operation_id="list-domains", tags=_TAGS, summary="List domains")
async def list_domains(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
    search: Search = None,
    account_id: OfAccount = None,
) -> DomainPage:
    """Show the host names that accounts hold, newest first."""
    page = PageRequest(limit=limit, cursor=cursor, search=search)
    return await operations.read(actor, request_id, lambda ctx: service.list_domains(ctx, page, account_id=account_id))


@post(
    "/domains",
    operation_id="create-domain",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Claim a domain for an account",
)
async def create_domain(
    *,
    data: JSONBody[DomainCreate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[DomainView]:
    """Reserve a host name, and all names below it, for one account; it is served once a site uses it."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.create_domain(ctx, data), is_dry_run=dry_run
    )
    return answer_done(outcome, status=201)


@get("/domains/{domain_id:str}", operation_id="show-domain", tags=_TAGS, summary="Show a domain")
async def show_domain(
    *,
    domain_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> DomainView:
    """Show one domain."""
    return await operations.read(actor, request_id, lambda ctx: service.show_domain(ctx, domain_id))


@delete(
    "/domains/{domain_id:str}",
    operation_id="delete-domain",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Release a domain",
)
async def delete_domain(
    *,
    domain_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Release a host name that no site uses, so that anybody may claim it."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.delete_domain(ctx, domain_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


ROUTES = (list_domains, create_domain, show_domain, delete_domain)

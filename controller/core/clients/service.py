"""Use cases of clients."""

from __future__ import annotations

import msgspec
from sqlalchemy import select

from controller.core.audit.chain import record
from controller.core.clients import store
from controller.core.clients.models import Client
from controller.core.clients.views import ClientCreate, ClientPage, ClientUpdate, ClientView
from controller.core.context import Change, OpContext
from controller.core.fields import require_email, require_text
from controller.core.operations import FleetContext
from controller.core.paging import PageRequest, contains, fetch_page
from controller.core.resellers.bounds import choose_owner
from controller.core.resellers.caps import within_caps
from controller.core.tenancy.people import remove_people_of_client
from controller.core.webhooks.audience import remove_endpoints_of
from shared.errors import ConflictError


async def list_clients(ctx: OpContext, page: PageRequest) -> ClientPage:
    """Newest first.

    Raises:
        ForbiddenError, InvalidInputError
    """
    ctx.actor.require("clients", "read")
    statement = select(Client).where(Client.deleted_at.is_(None))
    condition = contains((Client.name, Client.email), page.search)
    found = await fetch_page(ctx.session, statement if condition is None else statement.where(condition), page)
    counts = await store.count_accounts(ctx.session, [row.id for row in found.rows])
    items = tuple(store.view_client(row, counts.get(row.id, 0)) for row in found.rows)
    return ClientPage(items=items, next_cursor=found.next_cursor)


async def show_client(ctx: OpContext, client_id: str) -> ClientView:
    """One client.

    Raises:
        ForbiddenError, NotFoundError
    """
    ctx.actor.require("clients", "read")
    return await _view(ctx, await store.get_client(ctx.session, client_id))


async def create_client(ctx: FleetContext, params: ClientCreate) -> ClientView:
    """Add a client.

    Raises:
        ForbiddenError, InvalidInputError
        ConflictError: Its reseller is suspended.
        QuotaExceededError: Its reseller may not have more clients.
    """
    ctx.actor.require("clients", "write")
    client = Client(
        name=require_text("name", params.name, low=1, high=120),
        email=require_email("email", params.email),
        reseller_id=await choose_owner(ctx.session, ctx.actor, params.reseller_id),
        created_at=ctx.now,
        updated_at=ctx.now,
    )
    async with within_caps(ctx, client.reseller_id):
        ctx.session.add(client)
        await ctx.session.flush()
    view = store.view_client(client, 0)
    record(ctx, Change("client.create", f"client/{client.id}", client.name, after=msgspec.to_builtins(view)))
    return view


async def update_client(ctx: OpContext, client_id: str, params: ClientUpdate) -> ClientView:
    """Change a client.

    Raises:
        ForbiddenError, InvalidInputError, NotFoundError
    """
    ctx.actor.require("clients", "write")
    client = await store.get_client(ctx.session, client_id)
    before = await _view(ctx, client)
    if params.name is not msgspec.UNSET:
        client.name = require_text("name", params.name, low=1, high=120)
    if params.email is not msgspec.UNSET:
        client.email = require_email("email", params.email)
    if (client.name, client.email) == (before.name, before.email):
        return before
    client.updated_at = ctx.now
    await ctx.session.flush()
    view = await _view(ctx, client)
    change = Change(
        action="client.update",
        target=f"client/{client.id}",
        target_name=client.name,
        before=msgspec.to_builtins(before),
        after=msgspec.to_builtins(view),
    )
    record(ctx, change)
    return view


async def delete_client(ctx: OpContext, client_id: str) -> None:
    """Remove a client that owns no account, and everybody who signs in for it.

    Raises:
        ForbiddenError, NotFoundError
        ConflictError: It owns accounts.
    """
    ctx.actor.require("clients", "write")
    client = await store.get_client(ctx.session, client_id)
    view = await _view(ctx, client)
    if view.accounts:
        noun = "account" if view.accounts == 1 else "accounts"
        raise ConflictError(
            f"the client {client.name!r} owns {view.accounts} {noun}",
            hint="Delete the accounts first.",
            context={"accounts": view.accounts},
        )
    await remove_people_of_client(ctx, client.id)
    await remove_endpoints_of(ctx.session, client_id=client.id)
    client.deleted_at = ctx.now
    await ctx.session.flush()
    record(ctx, Change("client.delete", f"client/{client.id}", client.name, before=msgspec.to_builtins(view)))


async def _view(ctx: OpContext, client: Client) -> ClientView:
    counts = await store.count_accounts(ctx.session, [client.id])
    return store.view_client(client, counts.get(client.id, 0))

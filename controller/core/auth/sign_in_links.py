"""A link with which a billing system lets its customer in without a password: once, when followed within a minute.

It proves what a password would prove and no more: who has a second factor is asked for it as well. The token stands
behind the `#` of the address, so that no server and no log ever sees it; at rest is its SHA-256.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.auth.models import SignInLink, User
from controller.core.auth.secrets import LINK_PREFIX, hash_secret, new_secret
from controller.core.auth.users import is_tenant_open
from controller.core.context import Change, OpContext, Role
from controller.core.tenancy.standing import get_person, require_over
from shared.errors import ConflictError, ForbiddenError

LIFETIME: Final = timedelta(minutes=1)
"""Long enough for a redirect, too short to be passed on."""
CODE_LIFETIME: Final = timedelta(minutes=5)
"""Of a link that was followed in time by somebody with a second factor: a device is to be fetched, a code typed."""


class SignInLinkView(msgspec.Struct, frozen=True, kw_only=True):
    """A way in for one person, once."""

    url: Annotated[str, Meta(description="Redirect the person's browser there at once.")]
    token: Annotated[str, Meta(description="The same without a browser: POST /auth/sign-in-link. Shown once.")]
    expires_at: datetime


async def create_link(ctx: OpContext, user_id: str, *, controller_url: str) -> SignInLinkView:
    """A link for somebody of a tenant; an older one that was not used is worth nothing any more.

    Raises:
        ForbiddenError: The actor may not, may less than the person, or the person is an administrator.
        NotFoundError: There is no such person.
        ConflictError: The person is shut out.
    """
    ctx.actor.require("users", "write")
    user = await get_person(ctx.session, user_id)
    if user.role in (Role.ROOT.value, Role.ADMIN.value):
        raise ForbiddenError(f"no link lets an administrator in: {user.username}")
    await require_over(ctx, user)
    if user.disabled_at is not None or not await is_tenant_open(ctx.session, user):
        raise ConflictError(f"{user.username} cannot sign in now", hint="Enable the user, or the reseller, first.")
    await ctx.session.execute(
        delete(SignInLink).where((SignInLink.user_id == user.id) | (SignInLink.expires_at <= ctx.now))
    )
    secret = new_secret(LINK_PREFIX)
    row = SignInLink(user_id=user.id, secret_hash=hash_secret(secret), expires_at=ctx.now + LIFETIME)
    ctx.session.add(row)
    await ctx.session.flush()
    after = {"client_id": user.client_id, "expires_at": row.expires_at.isoformat()}
    record(ctx, Change("user.create_sign_in_link", f"user/{user.id}", user.username, after=after))
    return SignInLinkView(url=f"{controller_url}/sign-in#{secret}", token=secret, expires_at=row.expires_at)


async def find_linked(writer: AsyncSession, token: str, now: datetime) -> User | None:
    """Whom the link lets in, locked; None: it was used, is too old, or there is none."""
    statement = select(SignInLink).where(SignInLink.secret_hash == hash_secret(token), SignInLink.expires_at > now)
    row = (await writer.scalars(statement.with_for_update())).one_or_none()
    return None if row is None else await writer.get_one(User, row.user_id, with_for_update=True)


async def wait_for_code(writer: AsyncSession, token: str) -> None:
    """It was followed and asks for a code: it lives longer now, and no longer however often it is followed."""
    row = (await writer.scalars(select(SignInLink).where(SignInLink.secret_hash == hash_secret(token)))).one()
    row.expires_at = row.created_at + CODE_LIFETIME


async def use_up(writer: AsyncSession, token: str) -> None:
    """It lets nobody in any more."""
    await writer.execute(delete(SignInLink).where(SignInLink.secret_hash == hash_secret(token)))

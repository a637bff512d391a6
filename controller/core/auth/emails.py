"""The e-mail address of a person: where a link for another password goes."""

from __future__ import annotations

from sqlalchemy import select

from controller.core.audit.chain import record
from controller.core.auth.identities import Identity
from controller.core.auth.models import User
from controller.core.auth.sessions import require_person
from controller.core.auth.users import end_resets
from controller.core.context import Change, OpContext
from controller.core.fields import require_email
from controller.db.criteria import EVERYBODY
from shared.errors import ConflictError


def parse_user_email(raw: str) -> str:
    """The address in lower case, so that two ways to write it are one.

    Raises:
        InvalidInputError: It is no address.
    """
    return require_email("email", raw.strip()).lower()


async def set_email(ctx: OpContext, identity: Identity, email: str | None) -> str | None:
    """Have mails for oneself go to another address, or to none; links that were mailed to the old one are worthless.

    Whoever calls has asked for a proof of who it is.

    Raises:
        ForbiddenError: An API token asks.
        InvalidInputError: It is no address.
        ConflictError: Somebody else has it.
    """
    require_person(identity, "change an e-mail address")
    wanted = parse_user_email(email) if email is not None else None
    await require_email_free(ctx, wanted, but_for=identity.user_id)
    user = await ctx.session.get_one(User, identity.user_id, populate_existing=True)
    before, user.email = user.email, wanted
    await end_resets(ctx.session, user.id, ctx.now)
    await ctx.session.flush()
    change = Change(
        "user.set_email", f"user/{user.id}", user.username, before={"email": before}, after={"email": wanted}
    )
    record(ctx, change)
    return wanted


async def show_email(ctx: OpContext, identity: Identity) -> str | None:
    """Where mails for oneself go.

    Raises:
        ForbiddenError: A token without the scope asks.
    """
    ctx.actor.require("sessions", "read")
    return (await ctx.session.get_one(User, identity.user_id)).email


async def require_email_free(ctx: OpContext, email: str | None, *, but_for: str = "") -> None:
    """Pass when nobody who is not disabled has this address; a link for another password must go to one person.

    Raises:
        ConflictError: Somebody has it.
    """
    if email is None:
        return
    holder = select(User.id).where(User.email == email, User.disabled_at.is_(None), User.id != but_for)
    if (await ctx.session.scalars(holder.limit(1).execution_options(**EVERYBODY))).first() is not None:
        raise ConflictError("somebody else has this e-mail address", code="email_taken")

"""An administrator views as somebody of a tenant: for an hour, with a reason, and for the tenant to see."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from controller.core.audit.chain import record
from controller.core.auth.attempts import Device
from controller.core.auth.identities import Identity
from controller.core.auth.sessions import SessionTerms, SignIn, open_view, require_person
from controller.core.auth.users import is_tenant_open
from controller.core.context import Change, OpContext, Role
from controller.core.fields import require_text
from controller.core.tenancy.standing import get_person, require_over
from shared.errors import ConflictError, ForbiddenError

LIFETIME: Final = timedelta(hours=1)


async def impersonate(ctx: OpContext, viewer: Identity, user_id: str, reason: str, device: Device) -> SignIn:
    """Begin a session as somebody else; all that it does is written down as the administrator's.

    Raises:
        InvalidInputError: The reason is no text.
        ForbiddenError: The viewer is a program, no administrator, or may less than the person.
        NotFoundError: There is no such person.
        ConflictError: The person is shut out.
    """
    require_person(viewer, "view as somebody")
    ctx.actor.require_platform("users", "write")
    if ctx.actor.role not in (Role.ROOT, Role.ADMIN) or viewer.is_impersonated:
        raise ForbiddenError("only administrators view as somebody")
    why = require_text("reason", reason, low=3, high=300)
    user = await get_person(ctx.session, user_id)
    if user.role in (Role.ROOT.value, Role.ADMIN.value):
        raise ForbiddenError(f"nobody views as an administrator: {user.username}")
    await require_over(ctx, user)
    if user.disabled_at is not None or not await is_tenant_open(ctx.session, user):
        raise ConflictError(f"{user.username} cannot sign in now", hint="Enable the user, or the reseller, first.")
    terms = SessionTerms(now=ctx.now, expires_at=ctx.now + LIFETIME, sessions_max=1, has_second_factor=False)
    sign_in = await open_view(ctx.session, user, viewer, device, terms)
    after = {
        "reason": why,
        "client_id": user.client_id,
        "reseller_id": user.reseller_id,
        "expires_at": terms.expires_at.isoformat(),
    }
    record(ctx, Change("user.impersonate", f"user/{user.id}", user.username, after=after))
    return sign_in

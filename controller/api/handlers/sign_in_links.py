"""Single sign-on from a billing system: a link that lets somebody in once, over HTTP."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from litestar import Request, Response, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta

from controller.api.guards import DURING_MAINTENANCE, PUBLIC
from controller.api.handlers.auth import SessionView, address_of, answer_sign_in
from controller.api.rate_limit import LoginThrottle
from controller.core.auth.attempts import Device
from controller.core.auth.passkeys import PasskeyProof
from controller.core.auth.service import Authenticator, Second
from controller.core.auth.sign_in_links import SignInLinkView, create_link
from controller.core.context import Actor
from controller.core.http import PathId
from controller.core.operations import Operations

_OWNER: Final = "a link's owner"


class LinkCredentials(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What stands behind the `#` of a link."""

    token: Annotated[str, Meta(min_length=1, max_length=100)]
    code: Annotated[str, Meta(max_length=40, description="Of one's device, or a recovery code, when asked for.")] = ""
    passkey: PasskeyProof | None = None


@post(
    "/users/{user_id:str}/sign-in-link",
    operation_id="create-sign-in-link",
    tags=["users"],
    status_code=201,
    summary="Make a link that lets a user in",
)
async def create_sign_in_link(
    user_id: PathId,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    controller_url: NamedDependency[str],
) -> SignInLinkView:
    """Make a link for single sign-on: it lets this person in once, within a minute, and asks for a second factor."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: create_link(ctx, user_id, controller_url=controller_url)
    )
    return outcome.resource


@post(
    "/auth/sign-in-link",
    operation_id="use-sign-in-link",
    tags=["auth"],
    status_code=200,
    opt={PUBLIC: True, DURING_MAINTENANCE: True},
    summary="Sign in by a link",
)
async def use_sign_in_link(
    data: JSONBody[LinkCredentials],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    login_throttle: NamedDependency[LoginThrottle],
    request_id: NamedDependency[str],
) -> Response[SessionView]:
    """Begin a session by a link that somebody made for me."""
    address = address_of(request)
    await login_throttle.require(address, _OWNER, is_known_place=True, has_code=bool(data.code))
    device = Device(address=address, user_agent=request.headers.get("user-agent", ""), request_id=request_id)
    sign_in = await authenticator.sign_in_by_link(data.token, device, second=Second(data.code, data.passkey))
    await login_throttle.forgive(address, _OWNER, is_known_place=True)
    return answer_sign_in(sign_in)


ROUTES = (create_sign_in_link, use_sign_in_link)

"""Every permission there is. A test compares it with what the code asks for, so that none is missing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from controller.core.context import Actor, OpContext, Role
from controller.core.permissions import ROLE_PERMISSIONS, allows
from controller.core.tenancy.views import PermissionList, PermissionView

VERBS: Final = ("read", "write")
NOUNS: Final[Mapping[str, str]] = MappingProxyType({
    "accounts": "Accounts: their package, state and node.",
    "attention": "What a person should look at.",
    "audit": "Who changed what.",
    "authority": "The certificate authority and the keys that sign jobs.",
    "billing": "Who had what, and for how long.",
    "branding": "What clients see instead of the platform's name.",
    "clients": "People and companies that accounts belong to.",
    "domains": "Names that an account holds.",
    "drift": "What on a node is not as it was applied.",
    "enrolment": "How a machine becomes a node.",
    "events": "The list of events and their schemas.",
    "jobs": "What nodes were asked to do.",
    "settings": "What the controller was started with.",
    "maintenance": "When the controller takes no changes.",
    "metrics": "Figures of the controller and its nodes.",
    "modules": "The modules that this release has.",
    "nodes": "The machines of the fleet.",
    "notices": "What one was told of, and what one wants to be mailed.",
    "packages": "What accounts may use.",
    "parked": "What nodes could not bring about.",
    "passkeys": "One's own passkeys.",
    "policies": "What an administrator decides for the whole platform.",
    "processes": "The processes that a controller runs as.",
    "releases": "Bundles of the agent.",
    "resellers": "Those who sell packages to clients of their own.",
    "roles": "Custom roles.",
    "rules": "What the controller does by itself when something happens.",
    "rollouts": "Changes that go over many nodes in waves.",
    "schedules": "What the controller does again and again.",
    "security": "What holds for everybody who signs in.",
    "sessions": "One's own sessions and second factor.",
    "sites": "Web sites.",
    "ssh-keys": "Keys that let somebody in by SSH.",
    "tasks": "What the controller does by itself.",
    "tokens": "One's own API tokens.",
    "users": "People who sign in, and the teams of accounts.",
    "webhooks": "Events as HTTP requests.",
})  # fmt: skip
_WORDS: Final = {"read": "See", "write": "See and change"}


def is_known(permission: str) -> bool:
    """Whether it is in the catalogue, or a wildcard."""
    noun, _, verb = permission.partition(":")
    return permission == "*" or (verb in VERBS and (noun == "*" or noun in NOUNS))


def list_held(actor: Actor) -> list[str]:
    """All that the actor may."""
    return [f"{noun}:{verb}" for noun in NOUNS for verb in VERBS if actor.may(noun, verb)]


async def list_permissions(ctx: OpContext) -> PermissionList:
    """All of them, in order.

    Raises:
        ForbiddenError
    """
    ctx.actor.require("roles", "read")
    items = tuple(
        PermissionView(
            name=f"{noun}:{verb}",
            description=f"{_WORDS[verb]}: {description}",
            levels=[role.value for role in Role if allows(ROLE_PERMISSIONS[role], noun, verb)],
            is_mine=ctx.actor.may(noun, verb),
        )
        for noun, description in NOUNS.items()
        for verb in VERBS
    )
    return PermissionList(items=items)

"""What somebody may in the end, and whether somebody else has all of it; pure. Nobody gives more than they have."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from controller.core.context import Actor, Role
from controller.core.permissions import EVERYTHING, ROLE_PERMISSIONS, allows


def effective_permissions(role: Role, own: Collection[str] | None) -> frozenset[str]:
    """What a person of this role may.

    Args:
        role: Theirs.
        own: Of their custom role; None: they have none.
    """
    allowed = ROLE_PERMISSIONS[role]
    if allowed == EVERYTHING:
        return _spell_out(EVERYTHING if own is None else own)
    if own is None:
        return allowed
    given = frozenset(own)
    return frozenset(permission for permission in allowed if allows(given, *split_permission(permission)))


def find_excess(actor: Actor, permissions: Iterable[str]) -> str | None:
    """The first of these that the actor does not have, whatever keeps it from them: role, custom role or scopes."""
    return next((one for one in sorted(_spell_out(permissions)) if not actor.may(*split_permission(one))), None)


def split_permission(permission: str) -> tuple[str, str]:
    """`sites:read` as noun and verb."""
    noun, _, verb = permission.partition(":")
    return noun, verb


def _spell_out(permissions: Iterable[str]) -> frozenset[str]:
    found = set(permissions)
    if found & EVERYTHING:
        found = found - EVERYTHING | {"*:read", "*:write"}
    return frozenset(found)

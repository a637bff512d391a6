"""Where somebody came from is told to their own side: a tenant learns no address of the platform's people."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.auth.models import ApiToken, User
from controller.core.context import Reach

_PEOPLES = ("user", "token")


async def find_hidden(session: AsyncSession, reach: Reach, actors: Collection[str]) -> frozenset[str]:
    """Those of the actors (`kind/ID`) whose address this reader is not told.

    Whoever tried to sign in is nobody's, and a tenant may know who knocked at its door.

    Args:
        session: Narrowed to what the reader reaches, so that it holds the reader's own people and no others.
        reach: Of the reader.
        actors: As entries of the log name them.
    """
    if reach.is_everything:
        return frozenset()
    ids = {kind: {actor.partition("/")[2] for actor in actors if actor.startswith(f"{kind}/")} for kind in _PEOPLES}
    people = set(await session.scalars(select(User.id).where(User.id.in_(ids["user"]))))
    of_tokens = select(ApiToken.id, ApiToken.user_id).where(ApiToken.id.in_(ids["token"]))
    owners = {row[0]: row[1] for row in await session.execute(of_tokens)}
    own_owners = set(await session.scalars(select(User.id).where(User.id.in_(set(owners.values())))))
    tokens = {token_id for token_id, owner in owners.items() if owner in own_owners}
    own = {f"user/{user_id}" for user_id in people} | {f"token/{token_id}" for token_id in tokens}
    return frozenset(actor for actor in actors if actor.partition("/")[0] in _PEOPLES and actor not in own)

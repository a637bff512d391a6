"""Who must have a second factor and where people may come from, as an administrator decided for everybody.

Lists alone: the figures of signing in are policies of the platform (controller.core.policies).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.chain import record
from controller.core.auth.models import SecurityPolicyRow
from controller.core.auth.networks import is_loopback, parse_networks, require_network, require_still_inside
from controller.core.context import Change, OpContext, Role
from controller.db.engine import Database
from shared.errors import InvalidInputError

NOUN: Final = "security"
POLICY_ID: Final = "00000000-0000-7000-8000-000000000001"
REFRESH_SECONDS: Final = 5.0
"""A process is at most this far behind a change that another one made."""

Networks = Annotated[list[str], Meta(max_length=200, examples=[["203.0.113.0/24"]])]


class SecurityPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for everybody who signs in."""

    second_factor_roles: Annotated[tuple[str, ...], Meta(description="Roles that must have a second factor.")] = ()
    allowed_networks: Annotated[
        tuple[str, ...], Meta(description="Where people and tokens may come from; empty: everywhere.")
    ] = ()
    denied_networks: Annotated[
        tuple[str, ...], Meta(description="Nothing from there is answered; stronger than what is allowed.")
    ] = ()


class SecurityPolicyUpdate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What shall be different."""

    second_factor_roles: Annotated[list[str], Meta(max_length=8, examples=[["root", "admin"]])] | UnsetType = UNSET
    allowed_networks: Networks | UnsetType = UNSET
    denied_networks: Networks | UnsetType = UNSET


class PolicyBook:
    """The policy as this process knows it, so that no request asks the database for it."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._policy = SecurityPolicy()
        self._read_at: float | None = None
        self._is_known = False
        self._turn = asyncio.Lock()

    async def current(self) -> SecurityPolicy:
        """What holds now; read again when it is older than REFRESH_SECONDS."""
        if self._is_fresh():
            return self._policy
        async with self._turn:
            if not self._is_fresh():
                await self._read()
        return self._policy

    async def _read(self) -> None:
        try:
            async with self._database.read() as session:
                self._policy = await read_policy(session)
            self._is_known = True
        except SQLAlchemyError:
            if not self._is_known:  # what was never read might deny this very request
                raise
        self._read_at = self._clock()

    def forget(self) -> None:
        """Read it again at the next request: it was changed here."""
        self._read_at = None

    def _is_fresh(self) -> bool:
        return self._read_at is not None and self._clock() - self._read_at < REFRESH_SECONDS


async def read_policy(session: AsyncSession) -> SecurityPolicy:
    """What is stored, or the defaults."""
    row = (await session.scalars(select(SecurityPolicyRow).where(SecurityPolicyRow.id == POLICY_ID))).one_or_none()
    if row is None:
        return SecurityPolicy()
    return SecurityPolicy(
        second_factor_roles=tuple(row.second_factor_roles),
        allowed_networks=tuple(row.allowed_networks),
        denied_networks=tuple(row.denied_networks),
    )


async def show_policy(ctx: OpContext) -> SecurityPolicy:
    """What holds.

    Raises:
        ForbiddenError
    """
    ctx.actor.require(NOUN, "read")
    return await read_policy(ctx.session)


async def update_policy(ctx: OpContext, params: SecurityPolicyUpdate, address: str) -> SecurityPolicy:
    """Change what holds.

    Args:
        ctx: Whose wish it is.
        params: What shall be different.
        address: Where the wish comes from: a list that would shut this address out is refused.

    Raises:
        ForbiddenError, InvalidInputError
        ConflictError: The lists would lock out whoever asks.
    """
    ctx.actor.require(NOUN, "write")
    before = await read_policy(ctx.session)
    given = {name: value for name, value in msgspec.structs.asdict(params).items() if value is not UNSET}
    for name in ("allowed_networks", "denied_networks"):
        if name in given:
            given[name] = parse_networks(given[name], field=name)
    if "second_factor_roles" in given:
        given["second_factor_roles"] = _parse_roles(given["second_factor_roles"])
    after = msgspec.convert({**msgspec.to_builtins(before), **given}, SecurityPolicy)
    if after == before:
        return before
    if not is_loopback(address):
        require_still_inside(address, allow=after.allowed_networks, deny=after.denied_networks)
    await _store(ctx, after)
    record(
        ctx,
        Change(
            action="security.update",
            target=f"security/{POLICY_ID}",
            target_name="policy",
            before=msgspec.to_builtins(before),
            after=msgspec.to_builtins(after),
        ),
    )
    return after


def require_let_in(policy: SecurityPolicy, address: str) -> None:
    """Pass when people and tokens may come from this address. This machine itself may always: it is the way back in.

    Raises:
        ForbiddenError: They may not.
    """
    if not is_loopback(address):
        require_network(address, allow=policy.allowed_networks, deny=policy.denied_networks, who="people and tokens")


def require_not_denied(policy: SecurityPolicy, address: str) -> None:
    """Pass whatever does not come from a denied network, nodes and anonymous callers included.

    Raises:
        ForbiddenError: It comes from one.
    """
    if policy.denied_networks and not is_loopback(address):
        require_network(address, deny=policy.denied_networks, who="requests")


def _parse_roles(names: list[str]) -> list[str]:
    known = [role.value for role in Role]
    for name in names:
        if name not in known:
            raise InvalidInputError(
                f"there is no role {name[:40]!r}", field="second_factor_roles", hint=f"Roles: {', '.join(known)}."
            )
    return sorted(set(names))


async def _store(ctx: OpContext, policy: SecurityPolicy) -> None:
    values: dict[str, Any] = msgspec.to_builtins(policy)
    row = await ctx.session.get(SecurityPolicyRow, POLICY_ID)
    if row is None:
        ctx.session.add(SecurityPolicyRow(id=POLICY_ID, **values))
    else:
        for name, value in values.items():
            setattr(row, name, value)
    await ctx.session.flush()

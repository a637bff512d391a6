"""Who holds a secret: the one question that every request asks, answered by one prepared statement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal, NamedTuple

from sqlalchemy import or_, select, update
from sqlalchemy.orm import aliased

from controller.core.auth.models import ApiToken, Session, User
from controller.core.auth.networks import require_network
from controller.core.auth.obligations import Obligations
from controller.core.auth.secrets import SESSION_PREFIX, TOKEN_PREFIX, hash_secret
from controller.core.clients.models import Client
from controller.core.context import ALL_TENANTS, Actor, Reach, ReachKind, Role
from controller.core.permissions import EVERYTHING
from controller.core.policies.book import PlatformPolicyBook
from controller.core.policies.registry import PlatformPolicies
from controller.core.tenancy.models import CustomRole, Reseller
from controller.db.base import utc_now
from controller.db.engine import Database
from controller.db.prepared import Prepared, param

LAST_USED_RESOLUTION: Final = timedelta(minutes=5)
"""last_used_at is not worth a write transaction for every request."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody who showed a secret that is valid now."""

    actor: Actor
    user_id: str
    username: str
    credential_id: str
    """Id of the session or API token."""
    must_change_password: bool
    expires_at: datetime | None
    """None: the token does not expire."""
    verified_at: datetime | None = None
    """When the person of a session last proved who they are; None for a token, which proves nothing."""
    has_second_factor: bool = False
    """Of a session's user."""
    needs_second_factor: bool = False
    """Whether a package of theirs asked for one."""
    tenant: tuple[Literal["reseller", "client"], str] | None = None
    """Whom they belong to, by id; None: to the platform."""
    impersonated_by: str = ""
    """Name of the administrator who views as this person; empty: nobody does."""

    @property
    def client_id(self) -> str | None:
        """Of a client's person; None: they are the platform's or a reseller's."""
        return self.tenant[1] if self.tenant is not None and self.tenant[0] == "client" else None

    @property
    def is_impersonated(self) -> bool:
        """Whether an administrator views as this person."""
        return bool(self.actor.impersonator)

    @property
    def is_person(self) -> bool:
        """Whether somebody signed in, as opposed to a program with a token."""
        return self.actor.kind == "user"


class Standing(NamedTuple):
    """What a user may do, and whose rows they reach."""

    role: str
    reseller_id: str | None
    client_id: str | None
    permissions: list[str] | None
    """Of their custom role; None: they have none."""


class SessionRow(NamedTuple):
    """A session and its user; every request asks for one, so it is read on the hot path."""

    id: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime
    verified_at: datetime
    has_second_factor: bool
    needs_second_factor: bool
    is_by_link: bool
    impersonator_id: str | None
    impersonator_name: str
    impersonator_networks: Mapping[str, list[str]] | None
    user_id: str
    username: str
    must_change_password: bool
    networks: Mapping[str, list[str]] | None
    role: str
    reseller_id: str | None
    client_id: str | None
    permissions: list[str] | None


class _TokenRow(NamedTuple):
    """An API token and its user."""

    id: str
    name: str
    scopes: list[str]
    expires_at: datetime | None
    last_used_at: datetime | None
    allowed_networks: list[str] | None
    user_id: str
    username: str
    networks: Mapping[str, list[str]] | None
    role: str
    reseller_id: str | None
    client_id: str | None
    permissions: list[str] | None


_STANDING: Final = (User.role, User.reseller_id, User.client_id, CustomRole.permissions)
_IMPERSONATOR: Final = aliased(User)
IS_LET_IN: Final = (
    User.disabled_at.is_(None),
    Reseller.suspended_at.is_(None),
    Reseller.deleted_at.is_(None),
    Client.deleted_at.is_(None),
)
"""Of a user with their tenant (outer joins): neither is shut out."""

_SESSION: Final = Prepared(
    select(
        Session.id,
        Session.created_at,
        Session.expires_at,
        Session.last_used_at,
        Session.verified_at,
        Session.has_second_factor,
        Session.needs_second_factor,
        Session.is_by_link,
        Session.impersonator_id,
        Session.impersonator_name,
        _IMPERSONATOR.networks,
        User.id,
        User.username,
        User.must_change_password,
        User.networks,
        *_STANDING,
    )
    .join(User, User.id == Session.user_id)
    .outerjoin(CustomRole, CustomRole.id == User.role_id)
    .outerjoin(Reseller, Reseller.id == User.reseller_id)
    .outerjoin(Client, Client.id == User.client_id)
    .outerjoin(_IMPERSONATOR, _IMPERSONATOR.id == Session.impersonator_id)
    .where(
        Session.secret_hash == param("hash"),
        Session.expires_at > param("now"),
        *IS_LET_IN,
        _IMPERSONATOR.disabled_at.is_(None),
        or_(
            Session.impersonator_id.is_(None),
            _IMPERSONATOR.role.in_((Role.ROOT.value, Role.ADMIN.value)),
        ),
    ),
    SessionRow,
)
_TOKEN: Final = Prepared(
    select(
        ApiToken.id,
        ApiToken.name,
        ApiToken.scopes,
        ApiToken.expires_at,
        ApiToken.last_used_at,
        ApiToken.allowed_networks,
        User.id,
        User.username,
        User.networks,
        *_STANDING,
    )
    .join(User, User.id == ApiToken.user_id)
    .outerjoin(CustomRole, CustomRole.id == User.role_id)
    .outerjoin(Reseller, Reseller.id == User.reseller_id)
    .outerjoin(Client, Client.id == User.client_id)
    .where(ApiToken.secret_hash == param("hash"), ApiToken.revoked_at.is_(None), *IS_LET_IN),
    _TokenRow,
)


class Identities:
    """Finds who holds a secret, and notes that it was used."""

    def __init__(
        self, database: Database, *, rules: PlatformPolicyBook, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._database = database
        self._rules = rules
        self._clock = clock
        self.obligations = Obligations(database)
        self._uses: Counter[str] = Counter()
        """Token id to requests that are not written yet."""
        self._addresses: dict[str, str] = {}

    async def find_identity(self, secret: str, address: str = "") -> Identity | None:
        """Who holds this secret of a session or token; None when it is unknown, ended, or its user disabled.

        Raises:
            ForbiddenError: It is valid, and may not be used from this address, or no package of the person's accounts
                has API tokens.
        """
        now = self._clock()
        if secret.startswith(SESSION_PREFIX):
            return await self._find_session(hash_secret(secret), address, now)
        return await self._find_token(hash_secret(secret), address, now) if secret.startswith(TOKEN_PREFIX) else None

    async def _find_session(self, hashed: str, address: str, now: datetime) -> Identity | None:
        sessions = await self._database.glance(_SESSION, hash=hashed, now=now)
        if not sessions:
            return None
        rules = await self._rules.current()
        found: SessionRow = _limit_age(sessions[0], rules)
        if found.expires_at <= now or _is_idle(found, rules, now):
            return None
        if found.impersonator_id is None:
            require_user_network(found.networks, address, found.username)
            (await self.obligations.find(found.client_id)).require_let_in(address, found.username)
        else:  # it is the administrator who comes from somewhere
            require_user_network(found.impersonator_networks, address, found.impersonator_name)
        if now - found.last_used_at > _resolution_of(rules):
            values: dict[str, Any] = {"last_used_at": now, "last_address": address[:64]}
            async with self._database.write() as writer:
                await writer.execute(update(Session).where(Session.id == found.id).values(**values))
        return session_identity(found)

    async def _find_token(self, hashed: str, address: str, now: datetime) -> Identity | None:
        tokens = await self._database.glance(_TOKEN, hash=hashed)
        found: _TokenRow | None = tokens[0] if tokens else None
        if found is None or (found.expires_at is not None and found.expires_at <= now):
            return None
        require_user_network(found.networks, address, found.username)
        if found.allowed_networks:
            require_network(address, allow=found.allowed_networks, who=f"the token {found.name}")
        asked = await self.obligations.find(found.client_id)
        asked.require_tokens(found.username)
        asked.require_let_in(address, found.username)
        self._uses[found.id] += 1
        self._addresses[found.id] = address[:64]
        if found.last_used_at is None or now - found.last_used_at > LAST_USED_RESOLUTION:
            await self.write_uses()
        return _token_identity(found)

    async def write_uses(self) -> None:
        """Write how often tokens were used since the last time, and from where."""
        uses, addresses, now = self._uses, self._addresses, self._clock()
        self._uses, self._addresses = Counter(), {}
        if not uses:
            return
        async with self._database.write() as writer:
            for token_id, count in sorted(uses.items()):
                values = {
                    "last_used_at": now,
                    "use_count": ApiToken.use_count + count,
                    "last_address": addresses[token_id],
                }
                await writer.execute(update(ApiToken).where(ApiToken.id == token_id).values(**values))


def _limit_age(row: SessionRow, rules: PlatformPolicies) -> SessionRow:
    """It ends when sessions end that begin under the policy of now, if that is sooner than what it was given."""
    ends_at = row.created_at + timedelta(hours=rules.session_hours)
    return row if row.expires_at <= ends_at else row._replace(expires_at=ends_at)


def _is_idle(row: SessionRow, rules: PlatformPolicies, now: datetime) -> bool:
    idle = rules.session_idle_minutes
    return idle is not None and now - row.last_used_at >= timedelta(minutes=idle)


def _resolution_of(rules: PlatformPolicies) -> timedelta:
    """Where sessions end when nobody uses them, one in use must not look idle: it is noted each tenth of that time."""
    idle = rules.session_idle_minutes
    return LAST_USED_RESOLUTION if idle is None else min(LAST_USED_RESOLUTION, timedelta(minutes=idle) / 10)


def require_user_network(networks: Mapping[str, list[str]] | None, address: str, username: str) -> None:
    """Pass when the user's own lists let this address in.

    Raises:
        ForbiddenError: They do not.
    """
    if networks is not None:
        require_network(address, allow=networks.get("allow", ()), deny=networks.get("deny", ()), who=username)


def session_identity(row: SessionRow) -> Identity:
    """The identity of a session."""
    standing = Standing(row.role, row.reseller_id, row.client_id, row.permissions)
    name, impersonator = row.username, ""
    if row.impersonator_id is not None:
        name, impersonator = f"{row.impersonator_name} as {name}", f"user/{row.impersonator_id}"
    return Identity(
        actor=Actor(
            kind="user",
            id=row.user_id,
            name=name,
            role=Role(row.role),
            permissions=_permissions_of(standing),
            reach=reach_of(row.user_id, standing),
            user_id=row.user_id,
            impersonator=impersonator,
        ),
        user_id=row.user_id,
        username=row.username,
        credential_id=row.id,
        must_change_password=row.must_change_password and not row.is_by_link,
        expires_at=row.expires_at,
        verified_at=row.verified_at,
        has_second_factor=row.has_second_factor,
        needs_second_factor=row.needs_second_factor,
        tenant=_tenant_of(standing),
        impersonated_by=row.impersonator_name if impersonator else "",
    )


def _token_identity(row: _TokenRow) -> Identity:
    standing = Standing(row.role, row.reseller_id, row.client_id, row.permissions)
    actor = Actor(
        kind="token",
        id=row.id,
        name=row.name,
        role=Role(row.role),
        scopes=frozenset(row.scopes),
        permissions=_permissions_of(standing),
        reach=reach_of(row.user_id, standing),
        user_id=row.user_id,
    )
    return Identity(
        actor=actor,
        user_id=row.user_id,
        username=row.username,
        credential_id=row.id,
        must_change_password=False,
        expires_at=row.expires_at,
        tenant=_tenant_of(standing),
    )


def _tenant_of(standing: Standing) -> tuple[Literal["reseller", "client"], str] | None:
    """Whose counters their requests count on."""
    if standing.client_id is not None:
        return "client", standing.client_id
    return None if standing.reseller_id is None else ("reseller", standing.reseller_id)


def reach_of(user_id: str, standing: Standing) -> Reach:
    """Whose rows the user reaches. Somebody of a tenant without one reaches nobody's."""
    match Role(standing.role):
        case Role.ROOT | Role.ADMIN:
            return ALL_TENANTS
        case Role.RESELLER:
            return Reach(ReachKind.RESELLER, standing.reseller_id or "")
        case Role.CLIENT:
            return Reach(ReachKind.CLIENT, standing.client_id or "")
        case Role.MEMBER:
            return Reach(ReachKind.MEMBER, user_id)


def _permissions_of(standing: Standing) -> frozenset[str]:
    return EVERYTHING if standing.permissions is None else frozenset(standing.permissions)

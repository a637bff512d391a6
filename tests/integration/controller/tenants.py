"""Two resellers with everything that a tenant can have, and somebody of each role who works for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from controller.core.auth.models import ApiToken, User
from controller.core.auth.secrets import TOKEN_PREFIX, hash_secret, new_secret
from controller.core.clients.models import Client
from controller.core.context import Role
from controller.core.packages.models import Package
from controller.core.rules.models import Rule
from controller.core.tenancy.models import AccountMember, CustomRole, Reseller
from controller.core.webhooks.models import WebhookEndpoint
from controller.db.engine import Database
from tests.integration.conftest import FAST_HASHER

TENANT_ROLES: Final = (Role.RESELLER, Role.CLIENT, Role.MEMBER)
PASSWORD: Final = "a long password"


@dataclass(frozen=True)
class Tenant:
    """A reseller, their client, its account, and who signs in for them."""

    reseller_id: str
    ids: dict[str, str]
    """Path parameter to id; of what the platform has, too."""
    headers: dict[Role, dict[str, str]]
    """Role to the authorisation of somebody who may do all that the role allows."""
    user_ids: dict[Role, str]


async def sell(database: Database, ids: dict[str, str], name: str) -> Tenant:
    """Give what `fill` made to a new reseller: its client, account and packages."""
    async with database.write() as session:
        reseller = await session.get_one(Reseller, ids["reseller_id"])
        for key in ("client_id", "other_client_id"):
            (await session.get_one(Client, ids[key])).reseller_id = reseller.id
        for key in ("package_id", "other_package_id"):
            (await session.get_one(Package, ids[key])).reseller_id = reseller.id
        if "rule_id" in ids:
            (await session.get_one(Rule, ids["rule_id"])).owner = f"reseller/{reseller.id}"
        if "webhook_id" in ids:
            (await session.get_one(WebhookEndpoint, ids["webhook_id"])).reseller_id = reseller.id
        if "role_id" in ids:
            (await session.get_one(CustomRole, ids["role_id"])).owner = f"reseller/{reseller.id}"
        headers, user_ids = {}, {}
        for role in TENANT_ROLES:
            user = User(
                username=f"{role.value}.of.{name}",
                password_hash=FAST_HASHER.hash(PASSWORD),
                role=role.value,
                reseller_id=reseller.id if role is Role.RESELLER else None,
                client_id=None if role is Role.RESELLER else ids["client_id"],
            )
            session.add(user)
            await session.flush()
            secret = new_secret(TOKEN_PREFIX)
            session.add(ApiToken(user_id=user.id, name=name, secret_hash=hash_secret(secret), scopes=["*"]))
            headers[role], user_ids[role] = {"authorization": f"Bearer {secret}"}, user.id
        session.add(AccountMember(user_id=user_ids[Role.MEMBER], account_id=ids["account_id"]))
    return Tenant(reseller.id, ids, headers, user_ids)

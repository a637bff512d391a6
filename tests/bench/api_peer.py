"""`python -m tests.bench.api_peer NAME PORT DATABASE_URL CERT KEY`: what the controller's API is measured against.

Served by uvicorn with the controller's own settings. `fastapi` answers who asks, for the holder of an API token: looked
up by SHA-256 in the same tables, answered with the same fields. `litestar` serves a page of accounts from the same
statement and the same view, to everybody.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from litestar import Litestar, get
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from controller.core.accounts import store
from controller.core.accounts.models import Account
from controller.core.accounts.views import AccountPage
from controller.core.auth.models import ApiToken, User
from controller.core.context import Actor, Role
from controller.core.tenancy.catalogue import list_held

_bearer = HTTPBearer()


class Me(BaseModel):
    """The fields of the controller's own answer."""

    id: str
    username: str
    role: str
    kind: str
    scopes: list[str]
    must_change_password: bool
    has_second_factor: bool
    expires_at: datetime | None
    permissions: list[str]
    impersonated_by: str


async def open_session(request: Request) -> AsyncIterator[AsyncSession]:
    """One for each request, as FastAPI's documentation has it."""
    async with request.app.state.sessions() as session:
        yield session


async def find_me(
    shown: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)],
    session: Annotated[AsyncSession, Depends(open_session)],
) -> Me:
    """Who holds the token."""
    hashed = hashlib.sha256(shown.credentials.encode()).hexdigest()
    statement = (
        select(ApiToken.scopes, ApiToken.expires_at, User.id, User.username, User.role)
        .join(User, User.id == ApiToken.user_id)
        .where(ApiToken.secret_hash == hashed, ApiToken.revoked_at.is_(None), User.disabled_at.is_(None))
    )
    row = (await session.execute(statement)).one_or_none()
    if row is None or (row.expires_at is not None and row.expires_at <= datetime.now(UTC)):
        raise HTTPException(status_code=401)
    actor = Actor(kind="token", id=str(row.id), name=row.username, role=Role(row.role), scopes=frozenset(row.scopes))
    return Me(
        id=row.id,
        username=row.username,
        role=row.role,
        kind="token",
        scopes=sorted(row.scopes),
        must_change_password=False,
        has_second_factor=False,
        expires_at=row.expires_at,
        permissions=list_held(actor),
        impersonated_by="",
    )


async def show_me(found: Annotated[Me, Depends(find_me)]) -> Me:
    """The route."""
    return found


def make_fastapi(sessions: async_sessionmaker[AsyncSession]) -> Any:
    """As its documentation shows it: dependencies, a session for each request, a model for the answer."""
    app = FastAPI()
    app.state.sessions = sessions
    app.get("/api/v1/auth/me", response_model=Me)(show_me)
    return app


def make_litestar(sessions: async_sessionmaker[AsyncSession]) -> Any:
    """A bare handler of the framework that the controller is made with."""

    @get("/api/v1/accounts")
    async def list_accounts(limit: int) -> AccountPage:
        statement = select(Account).where(Account.deleted_at.is_(None)).order_by(Account.id.desc()).limit(limit + 1)
        async with sessions() as session:
            rows = list(await session.scalars(statement))
        return AccountPage(items=tuple(store.view_account(row) for row in rows[:limit]), next_cursor="more")

    return Litestar([list_accounts], openapi_config=None, logging_config=None)


def main() -> None:
    """Serve until the signal."""
    name, port, url, certificate, key = sys.argv[1:]
    sessions = async_sessionmaker(create_async_engine(url, pool_size=8), expire_on_commit=False)
    # All as in controller/serve.py.
    uvicorn.run(
        {"fastapi": make_fastapi, "litestar": make_litestar}[name](sessions),
        host="127.0.0.1",
        port=int(port),
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


if __name__ == "__main__":
    main()

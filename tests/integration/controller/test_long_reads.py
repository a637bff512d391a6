"""What is read for hours ends when the right to read it does: a listener of events, a log that is followed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, update
from sqlalchemy.sql.expression import Executable
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from controller.api.handlers.events import CLOSE_UNAUTHENTICATED, follow_rights
from controller.api.handlers.logs import LogFailure, LogLine, follow_log
from controller.api.vigil import ASK_AGAIN_SECONDS, Vigil
from controller.core.auth.models import Session, User
from controller.core.context import Role
from controller.core.tenancy.models import Reseller
from controller.core.tenancy.sight import Sight
from controller.db.base import utc_now
from shared.errors import ForbiddenError, UnauthenticatedError
from shared.protocol.grant import LogRecord
from tests.integration.controller.people import World
from tests.integration.controller.test_events import listen, receive, subscribe
from tests.integration.live import LiveController

REVOKED: dict[str, Executable] = {
    "session ended": delete(Session),
    "user disabled": update(User).where(User.username == "rita").values(disabled_at=utc_now()),
    "reseller suspended": update(Reseller).values(suspended_at=utc_now()),
    "reseller deleted": update(Reseller).values(deleted_at=utc_now()),
    "user deleted": delete(User).where(User.username == "rita"),
}


class Clock:
    """Seconds that a test lets pass."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def watch(world: World, who: str, clock: Clock) -> Vigil:
    secret = world.headers[who]["authorization"].removeprefix("Bearer ")
    return Vigil(world.controller.authenticator, secret, "127.0.0.1", clock=clock)


async def execute(world: World, *statements: Executable) -> None:
    async with world.controller.database.write() as session:
        for statement in statements:
            await session.execute(statement)


@pytest.mark.parametrize("what", REVOKED)
async def test_reader_when_what_let_them_in_is_gone_reads_no_more(world: World, what: str) -> None:
    clock = Clock()
    vigil = watch(world, "rita", clock)
    await vigil.ask()
    await execute(world, REVOKED[what])

    clock.now += ASK_AGAIN_SECONDS
    with pytest.raises(UnauthenticatedError):
        await vigil.keep()


async def test_reader_when_a_password_must_be_changed_or_a_factor_is_needed_reads_no_more(world: World) -> None:
    clock = Clock()
    vigil = watch(world, "rita", clock)
    await vigil.ask()
    for statement in (update(User).values(must_change_password=True), update(Session).values(needs_second_factor=True)):
        await execute(world, update(User).values(must_change_password=False), statement)
        clock.now += ASK_AGAIN_SECONDS
        with pytest.raises(ForbiddenError):
            await vigil.keep()


async def test_reader_when_asked_a_moment_ago_is_not_asked_again(world: World) -> None:
    """A busy listener must not cost a query for each event."""
    clock = Clock()
    vigil = watch(world, "rita", clock)
    await vigil.ask()
    await execute(world, delete(Session))

    clock.now += ASK_AGAIN_SECONDS / 2
    await vigil.keep()


async def test_listener_when_given_another_role_hears_what_that_role_may(world: World) -> None:
    clock = Clock()
    vigil = watch(world, "rita", clock)
    sight = Sight(world.controller.operations, (await vigil.ask()).actor)
    role_id = await world.add_role("Seller", Role.RESELLER, "accounts:read", "events:read")
    with world.controller.publisher.subscribe() as heard:
        heard.topics = frozenset({"packages"})
        vigil.settle = follow_rights(sight, heard)
        await execute(world, update(User).where(User.username == "rita").values(role_id=role_id))
        clock.now += ASK_AGAIN_SECONDS

        with pytest.raises(ForbiddenError):
            await vigil.keep()

    assert not sight.actor.may("packages", "read")


async def drain(socket: ClientConnection) -> None:
    """Read until the other side has enough."""
    while True:
        await receive(socket)


async def test_listener_over_a_socket_when_its_token_is_revoked_is_sent_away(live_controller: LiveController) -> None:
    async with live_controller.client() as http:
        made = (await http.post("/api/v1/tokens", json={"name": "ear"})).json()
        async with listen(live_controller, authorization=f"Bearer {made['secret']}") as socket:
            await subscribe(socket, "clients")
            assert (await http.delete(f"/api/v1/tokens/{made['token']['id']}")).status_code == 204
            with pytest.raises(ConnectionClosed) as closed:
                await drain(socket)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == CLOSE_UNAUTHENTICATED


class Lines:
    """A node that goes on sending lines."""

    async def read(self) -> bytes:
        return msgspec.json.encode(LogRecord(line="secret", cursor="1:1")) + b"\n"


async def test_log_when_followed_by_somebody_who_may_no_more_says_so_and_ends() -> None:
    asked = 0

    async def keep() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise UnauthenticatedError("the session or token is not valid (any more)")

    def encode(item: LogLine | LogFailure) -> bytes:
        return type(item).__name__.encode()

    stream: Any = Lines()
    told = [chunk async for chunk in follow_log(stream, encode, keep, sign_of_life=b"")]

    assert told == [b"LogLine", b"LogLine", b"LogFailure"]

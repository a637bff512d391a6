"""News on a WebSocket: who may listen, to what, and how slow they may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final

import msgspec
import structlog
from litestar import WebSocket, websocket
from litestar.di import NamedDependency
from litestar.exceptions import WebSocketDisconnect

from controller.api import scopes
from controller.api.errors import RateLimitedError
from controller.api.guards import PUBLIC
from controller.api.readers import Readers
from controller.api.vigil import ASK_AGAIN_SECONDS, Vigil, address_of, secret_of
from controller.core.auth.identities import Identity
from controller.core.auth.service import Authenticator
from controller.core.context import Actor
from controller.core.events.publisher import EventPublisher, Notice, Subscription, Topic
from controller.core.operations import Operations
from controller.core.tenancy.sight import Sight
from shared.errors import FleetError, InvalidInputError, UnauthenticatedError

HEARTBEAT_SECONDS: Final = 20.0
FIRST_MESSAGE_SECONDS: Final = 10.0
MAX_MESSAGE_CHARACTERS: Final = 4096

CLOSE_BAD_MESSAGE: Final = 4400
CLOSE_UNAUTHENTICATED: Final = 4401
CLOSE_FORBIDDEN: Final = 4403
CLOSE_TOO_SLOW: Final = 4429
CLOSE_TOO_MANY: Final = 4429
"""Both are what the HTTP status 429 is; the reason says which."""

_log = structlog.get_logger("controller.events")


class ClientMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a listener may say: its token first (unless a header or cookie said it), then topics."""

    token: str | None = None
    subscribe: list[str] | None = None


class ControlMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller says beside notices."""

    event: str
    """ready, subscribed, heartbeat or dropped."""
    topics: tuple[str, ...] = ()
    message: str = ""


def parse_message(raw: str) -> ClientMessage:
    """Read what a listener sent.

    Raises:
        InvalidInputError: It is too long or not such a message.
    """
    if len(raw) > MAX_MESSAGE_CHARACTERS:
        raise InvalidInputError("the message is too long")
    try:
        return msgspec.json.decode(raw, type=ClientMessage)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise InvalidInputError(f"not a message: {error}") from error


def require_topics(actor: Actor, names: list[str]) -> frozenset[str]:
    """Return the topics if the listener may read all of them.

    Raises:
        InvalidInputError: There is no such topic.
        ForbiddenError: The listener may not read its nouns.
    """
    known = {topic.value for topic in Topic}
    for name in names:
        if name not in known:
            raise InvalidInputError(f"there is no topic {name[:40]!r}", hint=f"Topics: {', '.join(sorted(known))}.")
        actor.require(name, "read")
    return frozenset(names)


@websocket("/events", opt={PUBLIC: True})
async def stream_events(
    socket: WebSocket[Any, Any, Any],
    publisher: NamedDependency[EventPublisher],
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    readers: NamedDependency[Readers],
) -> None:
    """Serve one listener until it leaves. A listener that proves nobody within ten seconds is sent away."""
    await socket.accept()
    try:
        vigil = Vigil(authenticator, await _secret_of(socket), address_of(socket))
        identity = await vigil.ask()
        readers.admit(socket.scope, identity)
        with publisher.subscribe() as subscription:
            sight = Sight(operations, identity.actor)
            vigil.settle = follow_rights(sight, subscription)
            await _say(socket, ControlMessage(event="ready"))
            await _serve(socket, subscription, sight, vigil)
    except FleetError as error:
        await socket.close(code=_close_code_of(error), reason=error.message[:100])
    except WebSocketDisconnect:
        return


async def _secret_of(socket: WebSocket[Any, Any, Any]) -> str:
    """Of the headers if it is good; else what the first message says."""
    return secret_of(socket) if scopes.identity_of(socket.scope) is not None else await _read_token(socket)


async def _read_token(socket: WebSocket[Any, Any, Any]) -> str:
    """The secret of the first message."""
    try:
        async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
            message = parse_message(await socket.receive_text())
    except TimeoutError as error:
        raise UnauthenticatedError("no token came in time") from error
    if not message.token:
        raise UnauthenticatedError("the first message must hold a valid token")
    return message.token


def follow_rights(sight: Sight, subscription: Subscription) -> Callable[[Identity], Awaitable[None]]:
    """What a vigil tells who they are now: they hear by that, and no longer at all what they may not."""

    async def settle(identity: Identity) -> None:
        if identity.actor != sight.actor:
            sight.become(identity.actor)
            require_topics(identity.actor, sorted(subscription.topics))

    return settle


async def _serve(socket: WebSocket[Any, Any, Any], subscription: Subscription, sight: Sight, vigil: Vigil) -> None:
    reader = asyncio.create_task(_read(socket, subscription, sight))
    writer = asyncio.create_task(_write(socket, subscription, sight, vigil))
    try:
        done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
    finally:  # also when the process stops: neither may outlive the listener
        reader.cancel()
        writer.cancel()
        await asyncio.gather(reader, writer, return_exceptions=True)
    for task in done:
        task.result()


async def _read(socket: WebSocket[Any, Any, Any], subscription: Subscription, sight: Sight) -> None:
    while True:
        message = parse_message(await socket.receive_text())
        if message.subscribe is not None:
            subscription.topics = require_topics(sight.actor, message.subscribe)
            await _say(socket, ControlMessage(event="subscribed", topics=tuple(sorted(subscription.topics))))


async def _write(socket: WebSocket[Any, Any, Any], subscription: Subscription, sight: Sight, vigil: Vigil) -> None:
    said_at = monotonic()
    while not subscription.is_dropped:
        notice = await subscription.next(ASK_AGAIN_SECONDS)
        await vigil.keep()
        if notice is None or not await sight.sees(notice):
            if monotonic() - said_at < HEARTBEAT_SECONDS:
                continue
            notice = None
        await _say(socket, notice or ControlMessage(event="heartbeat"))
        said_at = monotonic()
    _log.warning("events.listener_dropped")
    await _say(socket, ControlMessage(event="dropped", message="too slow: reconnect and read the lists again"))
    await socket.close(code=CLOSE_TOO_SLOW, reason="too slow")


async def _say(socket: WebSocket[Any, Any, Any], message: Notice | ControlMessage) -> None:
    await socket.send_text(msgspec.json.encode(message, enc_hook=str).decode())


def _close_code_of(error: FleetError) -> int:
    if isinstance(error, UnauthenticatedError):
        return CLOSE_UNAUTHENTICATED
    if isinstance(error, RateLimitedError):
        return CLOSE_TOO_MANY
    return CLOSE_BAD_MESSAGE if isinstance(error, InvalidInputError) else CLOSE_FORBIDDEN


ROUTES = (stream_events,)

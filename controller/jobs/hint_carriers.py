"""What can carry hints between processes: PostgreSQL's own NOTIFY, or Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

import asyncpg  # type: ignore[import-untyped] # upstream ships no types
from sqlalchemy import make_url

from controller.jobs.hints import CarrierError
from shared.errors import InvalidInputError

CHANNEL: Final = "wcp360_hints"
_CONNECT_SECONDS: Final = 10.0
_CHECK_SECONDS: Final = 15
"""How often a quiet line is asked whether it is still one."""


class PostgresCarrier:
    """LISTEN and NOTIFY on one connection of its own, outside every business transaction."""

    payload_bytes_max = 7_900
    """Source: PostgreSQL manual, NOTIFY: the payload must be shorter than 8000 bytes."""

    def __init__(self, database_url: str) -> None:
        """`database_url`: postgresql+asyncpg://..."""
        url = make_url(database_url)
        _, self._options = url.get_dialect()().create_connect_args(url)
        self._connection: asyncpg.Connection[Any] | None = None
        self._lock = asyncio.Lock()

    async def listen(self, deliver: Callable[[str], None]) -> None:
        """See HintCarrier."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                connection = await asyncpg.connect(**self._options)
                await connection.add_listener(CHANNEL, lambda _c, _pid, _channel, payload: deliver(str(payload)))
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise CarrierError(f"PostgreSQL: {error}") from error
        self._connection = connection
        try:
            while True:
                await asyncio.sleep(_CHECK_SECONDS)
                await self._ask(connection, "SELECT 1")
        finally:
            self._connection = None
            connection.terminate()

    async def send(self, payloads: Sequence[str]) -> None:
        """See HintCarrier."""
        connection = self._connection
        if connection is None:
            raise CarrierError("PostgreSQL: not connected")
        await self._ask(connection, "SELECT pg_notify($1, item) FROM unnest($2::text[]) item", CHANNEL, list(payloads))

    async def _ask(self, connection: asyncpg.Connection[Any], statement: str, *values: Any) -> None:
        try:
            async with self._lock, asyncio.timeout(_CONNECT_SECONDS):
                await connection.execute(statement, *values)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise CarrierError(f"PostgreSQL: {error}") from error

    async def close(self) -> None:
        """See HintCarrier."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class RedisCarrier:
    """Redis pub/sub: at most once, and a reader that is too slow is cut off."""

    payload_bytes_max = 256 * 1024

    def __init__(self, redis_url: str, *, prefix: str) -> None:
        """`prefix` keeps two controllers on one Redis apart: pub/sub does not know databases.

        Raises:
            InvalidInputError: The library is not installed.
        """
        try:
            from redis import asyncio as client  # noqa: PLC0415 - only who uses Redis needs the library
            from redis.exceptions import RedisError  # noqa: PLC0415 - as above
        except ImportError as error:
            raise InvalidInputError("Redis needs the extra 'scale'", hint="pip install 'wcp360[scale]'") from error
        self._errors = (RedisError, OSError, TimeoutError)
        self._channel = f"{prefix}:hints"
        self._redis = client.Redis.from_url(
            redis_url,
            socket_connect_timeout=_CONNECT_SECONDS,
            health_check_interval=_CHECK_SECONDS,
            decode_responses=True,
        )

    async def listen(self, deliver: Callable[[str], None]) -> None:
        """See HintCarrier."""
        try:
            async with self._redis.pubsub() as line:
                await line.subscribe(self._channel)
                while True:
                    message = await line.get_message(ignore_subscribe_messages=True, timeout=_CHECK_SECONDS)
                    if message is not None and message.get("type") == "message":
                        deliver(str(message["data"]))
        except self._errors as error:
            raise CarrierError(f"Redis: {type(error).__name__}") from error

    async def send(self, payloads: Sequence[str]) -> None:
        """See HintCarrier."""
        try:
            async with self._redis.pipeline(transaction=False) as line:
                for payload in payloads:
                    line.publish(self._channel, payload)
                await line.execute()
        except self._errors as error:
            raise CarrierError(f"Redis: {type(error).__name__}") from error

    async def close(self) -> None:
        """See HintCarrier."""
        await self._redis.aclose()

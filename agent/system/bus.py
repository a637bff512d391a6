"""The connection to systemd over D-Bus: calls, and jobs that are waited for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from shared.errors import CommandError, UnavailableError

SERVICE: Final = "org.freedesktop.systemd1"
MANAGER_PATH: Final = "/org/freedesktop/systemd1"
MANAGER: Final = "org.freedesktop.systemd1.Manager"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"

CALL_TIMEOUT_SECONDS: Final = 30.0
RELOAD_TIMEOUT_SECONDS: Final = 180.0
"""A daemon-reload answers when all generators ran and all units are read again."""
JOB_TIMEOUT_SECONDS: Final = 120.0
"""Longer than systemd's own default (90 s, DefaultTimeoutStartSec), so that its verdict comes first."""

GONE_ERRORS: Final = frozenset(
    f"org.freedesktop.DBus.Error.{name}"
    for name in ("NoReply", "Disconnected", "ServiceUnknown", "NameHasNoOwner", "Timeout", "TimedOut")
)
"""systemd or the bus went away while it was asked: `systemctl daemon-reexec`, a restart of the bus.

Source: D-Bus specification, "Message Bus Messages"; sd-bus-errors(3).
"""
CALL_ATTEMPTS: Final = 4
ATTEMPT_PAUSE_SECONDS: Final = 0.5

NO_SUCH_UNIT: Final = frozenset(
    {f"{SERVICE}.NoSuchUnit", "org.freedesktop.DBus.Error.FileNotFound", f"{SERVICE}.LoadFailed"}
)


class SystemdError(CommandError):
    """systemd answered with an error; `name` is the D-Bus error's name."""

    def __init__(self, member: str, arguments: Sequence[Any], name: str, text: str) -> None:
        words = tuple(str(word) for word in arguments if isinstance(word, str))
        super().__init__(("systemd", member, *words), 1, text)
        self.name = name


class ConnectionLostError(UnavailableError):
    """systemd went on, but nobody will tell us how the job ended: whoever waits asks again."""

    code = "systemd_unavailable"


class SystemdBus:
    """One connection for the life of the process, made when it is first needed and again when it broke."""

    def __init__(self) -> None:
        self._bus: MessageBus | None = None
        self._connecting = asyncio.Lock()
        self._starting = 0
        self._waiting: dict[str, asyncio.Future[str]] = {}
        self._early: dict[str, str] = {}
        self._watcher: asyncio.Task[None] | None = None

    async def call(  # noqa: PLR0913 - one D-Bus message
        self,
        member: str,
        signature: str = "",
        body: Sequence[Any] = (),
        *,
        path: str = MANAGER_PATH,
        interface: str = MANAGER,
        timeout_seconds: float = CALL_TIMEOUT_SECONDS,
        descriptors: Sequence[int] = (),
    ) -> list[Any]:
        """Call systemd and return the answer's values; `descriptors` go along and stay ours to close.

        Raises:
            SystemdError: It said no.
            UnavailableError: It did not answer.
        """

        def make_message() -> Message:
            return Message(
                destination=SERVICE,
                path=path,
                interface=interface,
                member=member,
                signature=signature,
                body=list(body),
                unix_fds=list(descriptors),
            )

        for _ in range(CALL_ATTEMPTS - 1):
            try:
                return await self._call_once(make_message(), timeout_seconds)
            except ConnectionLostError:
                # Every method that we call may be called twice: it says what shall be, not what to do once more.
                await asyncio.sleep(ATTEMPT_PAUSE_SECONDS)
        return await self._call_once(make_message(), timeout_seconds)

    async def _call_once(self, message: Message, timeout_seconds: float) -> list[Any]:
        member, body = message.member or "", message.body
        bus = await self._connected()
        try:
            async with asyncio.timeout(timeout_seconds):
                reply = await bus.call(message)
        except TimeoutError as error:
            raise UnavailableError(f"systemd did not answer {member}", code="systemd_unavailable") from error
        except (EOFError, OSError) as error:
            raise ConnectionLostError(f"systemd went away before it answered {member}") from error
        if reply is None:
            raise ConnectionLostError(f"systemd went away before it answered {member}")
        if reply.message_type is MessageType.ERROR:
            text = str(reply.body[0]) if reply.body else str(reply.error_name)
            if str(reply.error_name) in GONE_ERRORS:
                raise ConnectionLostError(f"systemd went away before it answered {member}: {text}")
            raise SystemdError(member, body, str(reply.error_name), text)
        return list(reply.body)

    async def run_job(
        self,
        member: str,
        signature: str,
        body: Sequence[Any],
        *,
        timeout_seconds: float = JOB_TIMEOUT_SECONDS,
        descriptors: Sequence[int] = (),
    ) -> str:
        """Call a method that queues a job, wait for its end, and return how it ended (`done`, `failed`, ...).

        Source: org.freedesktop.systemd1(5), JobRemoved: done, canceled, timeout, failed, dependency, skipped.

        Raises:
            SystemdError: The job was not queued.
            ConnectionLostError: It was, and the connection broke before its end was told.
            UnavailableError: It did not end in time.
        """
        future: asyncio.Future[str]
        async with self._expecting():
            (path,) = await self.call(member, signature, body, descriptors=descriptors)
            if path in self._early:
                return self._early.pop(path)
            future = self._waiting[path] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await future
        except TimeoutError as error:
            raise UnavailableError(
                f"systemd did not finish {member} of {body[0]} in {timeout_seconds:g} s", code="systemd_unavailable"
            ) from error
        finally:
            self._waiting.pop(path, None)

    @contextlib.asynccontextmanager
    async def _expecting(self) -> AsyncIterator[None]:
        """While a job's name is not yet known, results of unknown jobs are kept: it may end before we hear its name."""
        self._starting += 1
        try:
            yield
        finally:
            self._starting -= 1
            if not self._starting:
                self._early.clear()

    async def _connected(self) -> MessageBus:
        async with self._connecting:
            if self._bus is not None and self._bus.connected:
                return self._bus
            self._abandon_jobs()
            try:
                async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                    bus = await MessageBus(bus_type=BusType.SYSTEM, negotiate_unix_fd=True).connect()
                    bus.add_message_handler(self._take_signal)
                    rule = f"type='signal',sender='{SERVICE}',interface='{MANAGER}',member='JobRemoved'"
                    await bus.call(
                        Message(
                            destination="org.freedesktop.DBus",
                            path="/org/freedesktop/DBus",
                            interface="org.freedesktop.DBus",
                            member="AddMatch",
                            signature="s",
                            body=[rule],
                        )
                    )
                    subscribe = Message(destination=SERVICE, path=MANAGER_PATH, interface=MANAGER, member="Subscribe")
                    await bus.call(subscribe)
            except (OSError, EOFError, TimeoutError) as error:
                raise UnavailableError("the system's D-Bus does not answer", code="systemd_unavailable") from error
            self._bus = bus
            self._watcher = asyncio.create_task(self._watch(bus))
            return bus

    async def _watch(self, bus: MessageBus) -> None:
        """Tell those who wait for a job at once when the connection breaks, not only when it is needed again."""
        with contextlib.suppress(EOFError, OSError):
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call] # the library's
        if bus is self._bus:
            self._abandon_jobs()

    def _abandon_jobs(self) -> None:
        """Signals of the old connection are lost; whoever waits for one hears it now."""
        lost = ConnectionLostError("the connection to systemd broke")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(lost)
        self._waiting.clear()

    def _take_signal(self, message: Message) -> None:
        if message.message_type is not MessageType.SIGNAL or message.member != "JobRemoved":
            return
        _, path, _, result = message.body
        future = self._waiting.get(path)
        if future is not None and not future.done():
            future.set_result(result)
        elif future is None and self._starting:
            self._early[path] = result

    async def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        if self._bus is not None:
            self._bus.disconnect()
            self._bus = None

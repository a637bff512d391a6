"""Hints between the processes of a controller: look now instead of at your next poll.

Every hint may be lost, repeated or late, so nothing but speed may depend on one: whoever reacts to a hint also polls.
Hints are sent after a commit and never inside a transaction. In this process they arrive at once; for others they are
gathered for a moment, because a carrier that is rung for every commit becomes the bottleneck (docs/adr/0016-hints.md).
"""

from __future__ import annotations

import asyncio
import enum
import random
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec
import structlog

from controller.jobs.loops import Loops

GATHER_SECONDS: Final = 0.02
"""Source: measurements of others put the ceiling of NOTIFY per commit at 500 to 600 commits a second."""
SEND_TIMEOUT_SECONDS: Final = 5.0
PENDING_MAX: Final = 10_000
"""Items that wait for a carrier that does not answer; more are dropped, as they may be."""
_RECONNECT_SECONDS: Final = (0.2, 10.0)

_log = structlog.get_logger("controller.hints")


class Channel(enum.Enum):
    """What a hint is about; the comment says what its items are."""

    REQUESTED = "requested"  # nothing: jobs wait for a signature, for relays
    WORK = "work"  # node ids: something is to be sent to them, for the gateway that holds them
    CHANGED = "changed"  # job ids: they have moved, for those who wait for one
    CHECK = "check"  # nothing: somebody may have been revoked, or a job cancelled, for gateways
    TRUST = "trust"  # nothing: there is a new trust bundle, for gateways
    STREAMS = "streams"  # whatever controller.fleet's streams put there
    HEALTH = "health"  # node ids: somebody wants to know how they are doing, for the gateway that holds them
    TASKS = "tasks"  # task ids: due now, for workers
    EVENTS = "events"  # notices as JSON, for the screens of people (controller.core.events)


Listener = Callable[[Sequence[str]], None]
"""Called on the event loop with the items; must not wait, and must not fail."""


class CarrierError(Exception):
    """The carrier is not there; what was to be sent is lost, as it may be."""


class HintCarrier(Protocol):
    """Carries text between processes; at most once, in no order."""

    @property
    def payload_bytes_max(self) -> int: ...

    async def listen(self, deliver: Callable[[str], None]) -> None:
        """Deliver what others (and this process) send, until cancelled.

        Raises:
            CarrierError: It broke; call again after a while.
        """
        ...

    async def send(self, payloads: Sequence[str]) -> None:
        """Send to everybody who listens now.

        Raises:
            CarrierError: Some of it may be lost.
        """
        ...

    async def close(self) -> None: ...


class _Packet(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    origin: str
    channel: str
    items: list[str]


class Hints:
    """This process's end of it. Without a carrier: hints inside the process only."""

    def __init__(self, carrier: HintCarrier | None = None) -> None:
        self._carrier = carrier
        self._origin = uuid.uuid4().hex[:12]
        self._listeners: dict[Channel, list[Listener]] = {}
        self._pending: dict[Channel, dict[str, None]] = {}
        self._has_pending = asyncio.Event()
        self._loops = Loops()
        self._listening: asyncio.Task[None] | None = None
        self.lost_count = 0
        """Items that no other process can have got."""

    @property
    def reaches_others(self) -> bool:
        """Whether other processes hear what is sent."""
        return self._carrier is not None

    def on(self, channel: Channel, listener: Listener) -> None:
        """Call this at each hint, wherever it comes from."""
        self._listeners.setdefault(channel, []).append(listener)

    def send(self, channel: Channel, items: Iterable[str] = ("",)) -> None:
        """Tell everybody; never waits and never fails."""
        known = list(items)
        self._dispatch(channel, known)
        self.send_to_others(channel, known)

    def send_to_others(self, channel: Channel, items: Iterable[str]) -> None:
        """Tell the other processes only."""
        if self._carrier is None:
            return
        waiting = self._pending.setdefault(channel, {})
        for item in items:
            if len(waiting) >= PENDING_MAX:
                self.lost_count += 1
                continue
            waiting[item] = None
        self._has_pending.set()

    async def start(self) -> None:
        """Begin to carry."""
        if self._carrier is not None:
            self._loops.spawn(self._run_sender(), name="hints-send")
            self._listening = asyncio.create_task(self._run_listener(self._carrier), name="hints-listen")

    async def stop(self) -> None:
        """Carry no more."""
        if self._listening is not None:
            while not self._listening.done():
                # Again, if need be: a library that waits with time limits may swallow a cancellation (CPython 3.11).
                self._listening.cancel()
                await asyncio.wait((self._listening,), timeout=1.0)
            self._listening = None
        await self._loops.stop()
        if self._carrier is not None:
            await self._carrier.close()

    async def _run_sender(self) -> None:
        is_going_on = True
        while is_going_on:
            is_going_on = await self._loops.pause_until(self._has_pending, 60.0)
            if is_going_on:
                await self._loops.pause(GATHER_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Send what was gathered."""
        pending, self._pending = self._pending, {}
        self._has_pending.clear()
        if self._carrier is None or not pending:
            return
        payloads = [
            payload
            for channel, items in pending.items()
            for payload in self._pack(channel, list(items), self._carrier.payload_bytes_max)
        ]
        try:
            async with asyncio.timeout(SEND_TIMEOUT_SECONDS):
                await self._carrier.send(payloads)
        except (CarrierError, TimeoutError) as error:
            self.lost_count += sum(len(items) for items in pending.values())
            _log.warning("hints.lost", error=str(error) or "no answer in time")

    async def _run_listener(self, carrier: HintCarrier) -> None:
        low, high = _RECONNECT_SECONDS
        wait = low
        while True:
            try:
                await carrier.listen(self._receive)
                wait = low
            except CarrierError as error:
                _log.warning("hints.deaf", error=str(error))
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            wait = min(high, wait * 2)

    def _receive(self, payload: str) -> None:
        try:
            packet = msgspec.json.decode(payload, type=_Packet)
            channel = Channel(packet.channel)
        except (msgspec.MsgspecError, ValueError, UnicodeError):
            return  # of another release, or nobody of ours
        if packet.origin != self._origin:
            self._dispatch(channel, packet.items)

    def _dispatch(self, channel: Channel, items: Sequence[str]) -> None:
        for listener in self._listeners.get(channel, ()):
            listener(items)

    def _pack(self, channel: Channel, items: list[str], high: int) -> Iterable[str]:
        """Items in as few packets as fit; one that fits into none is dropped."""
        packet = msgspec.json.encode(_Packet(origin=self._origin, channel=channel.value, items=items))
        if len(packet) <= high:
            yield packet.decode()
        elif len(items) == 1:
            self.lost_count += 1
        else:
            middle = len(items) // 2
            yield from self._pack(channel, items[:middle], high)
            yield from self._pack(channel, items[middle:], high)

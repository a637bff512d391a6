"""Tells listeners what happened, in whichever process it did: a slow listener harms nobody but itself.

Events travel between processes as hints do, and may be lost as they may: a screen that missed one reads its list again.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from controller.jobs.hints import Channel, Hints

QUEUE_LENGTH: Final = 256
"""Events that one listener may be behind before it is dropped."""


TRAVEL_BYTES_MAX: Final = 5_000
"""A larger event travels with nothing but its id, so that every carrier takes it."""


class Topic(enum.Enum):
    """What one can listen to; the value is also the noun that `Actor.require` asks about."""

    JOBS = "jobs"
    NODES = "nodes"
    PACKAGES = "packages"
    CLIENTS = "clients"
    ACCOUNTS = "accounts"
    DOMAINS = "domains"
    SITES = "sites"
    DRIFT = "drift"
    ENROLMENT = "enrolment"
    ROLLOUTS = "rollouts"
    METRICS = "metrics"
    AUDIT = "audit"
    SECURITY = "security"


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """One event as listeners get it."""

    topic: str
    event: str
    """What happened, for example job.succeeded."""
    data: dict[str, Any]


class Subscription:
    """What one listener waits on. Use it from the event loop of the publisher only."""

    def __init__(self, queue_length: int = QUEUE_LENGTH) -> None:
        self._queue: asyncio.Queue[Notice] = asyncio.Queue(queue_length)
        self.topics: frozenset[str] = frozenset()
        self.is_dropped = False
        """True once the listener was too slow; what is queued is then all it gets."""

    def offer(self, notice: Notice) -> None:
        """Queue the notice, or mark the listener as dropped when its queue is full."""
        try:
            self._queue.put_nowait(notice)
        except asyncio.QueueFull:
            self.is_dropped = True

    async def next(self, timeout_seconds: float) -> Notice | None:
        """The next notice; None when there was none within the time."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._queue.get()
        except TimeoutError:
            return None


class EventPublisher:
    """Hands each notice to everybody who listens to its topic, here and in the other processes."""

    def __init__(self, hints: Hints | None = None) -> None:
        self._subscriptions: set[Subscription] = set()
        self._hints = hints if hints is not None and hints.reaches_others else None
        if self._hints is not None:
            self._hints.on(Channel.EVENTS, self._receive)

    def publish(self, topic: Topic | str, event: str, data: Mapping[str, Any]) -> None:
        """Tell all listeners; never waits and never fails. `data` must hold what JSON can."""
        name = topic.value if isinstance(topic, Topic) else topic
        notice = Notice(topic=name, event=event, data=dict(data))
        self._deliver(notice)
        if self._hints is not None:
            self._hints.send_to_others(Channel.EVENTS, (_render_for_travel(notice),))

    def is_heard(self, topic: Topic | str) -> bool:
        """Whether somebody listens to the topic, or might in another process."""
        name = topic.value if isinstance(topic, Topic) else topic
        return self._hints is not None or any(name in listener.topics for listener in self._subscriptions)

    def _receive(self, items: Sequence[str]) -> None:
        for item in items:
            try:
                self._deliver(msgspec.json.decode(item, type=Notice))
            except msgspec.MsgspecError:
                continue  # of another release

    def _deliver(self, notice: Notice) -> None:
        for subscription in tuple(self._subscriptions):
            if notice.topic in subscription.topics and not subscription.is_dropped:
                subscription.offer(notice)

    @contextmanager
    def subscribe(self, queue_length: int = QUEUE_LENGTH) -> Iterator[Subscription]:
        """A subscription without topics; set `topics` on it. It ends with the block."""
        subscription = Subscription(queue_length)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    @property
    def listener_count(self) -> int:
        """How many listeners there are now."""
        return len(self._subscriptions)


def _render_for_travel(notice: Notice) -> str:
    raw = msgspec.json.encode(notice, enc_hook=str)
    if len(raw) > TRAVEL_BYTES_MAX:
        shortened: dict[str, Any] = {"is_shortened": True}
        shortened |= {name: notice.data[name] for name in ("id", "account_id", "client_id") if name in notice.data}
        raw = msgspec.json.encode(Notice(topic=notice.topic, event=notice.event, data=shortened), enc_hook=str)
    return raw.decode()

"""A publisher inside one process: many topics, many listeners, and a slow listener harms nobody but itself."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import msgspec

QUEUE_LENGTH: Final = 256
"""Events that one listener may be behind before it is dropped."""


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
    METRICS = "metrics"
    AUDIT = "audit"


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
    """Hands each notice to everybody who listens to its topic."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()

    def publish(self, topic: Topic | str, event: str, data: Mapping[str, Any]) -> None:
        """Tell all listeners; never waits and never fails. `data` must hold what JSON can."""
        name = topic.value if isinstance(topic, Topic) else topic
        notice = Notice(topic=name, event=event, data=dict(data))
        for subscription in tuple(self._subscriptions):
            if name in subscription.topics and not subscription.is_dropped:
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

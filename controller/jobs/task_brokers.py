"""Carries ids of tasks through dramatiq, on Redis or RabbitMQ.

Dramatiq's own retries, results and delays are not used: the table has them, and a broker may lose or double anything.
The work itself runs on the application's event loop; dramatiq's worker threads only wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from shared.errors import InvalidInputError

ACTOR: Final = "task"
WORKER_THREADS: Final = 4
WORKER_TIMEOUT_MS: Final = 100
"""Dramatiq polls an idle Redis with a back-off up to this; its default of a second is a second of latency."""
MAX_AGE_MS: Final = 3_600_000
"""An id that nobody fetched for an hour was sent again long ago."""
STOP_SECONDS: Final = 15.0
SENDING_MAX: Final = 200
"""Messages that wait for a broker that does not answer; more are left to the sweeper."""

_log = structlog.get_logger("controller.tasks")


class DramatiqCarrier:
    """A TaskCarrier. Everything that blocks runs in threads."""

    def __init__(self, kind: str, url: str, *, prefix: str) -> None:
        """`kind`: redis or rabbitmq; `prefix` keeps two controllers on one broker apart.

        Raises:
            InvalidInputError: The libraries are not installed.
        """
        try:
            import dramatiq  # noqa: PLC0415 - only who uses a broker needs the library
        except ImportError as error:
            raise InvalidInputError("a broker needs the extra 'scale'", hint="pip install 'wcp360[scale]'") from error
        logging.getLogger("dramatiq").setLevel(logging.WARNING)
        logging.getLogger("pika").setLevel(logging.ERROR)  # it says at ERROR what it also raises, with the whole stack
        self._dramatiq = dramatiq
        self._broker = _make_broker(kind, url, prefix)
        self._queue = f"{prefix}.tasks" if kind == "rabbitmq" else "tasks"
        self._worker: Any = None
        self._run: Callable[[str], Awaitable[None]] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sender = ThreadPoolExecutor(1, "task-send")
        """One thread: dramatiq keeps a connection for each thread that sends."""
        self._sending: set[asyncio.Task[None]] = set()
        self.lost_count = 0
        """Ids that the broker did not take; the sweeper sends them again."""
        self._declare()

    def _declare(self) -> None:
        def task(task_id: str) -> None:
            """In a worker's thread."""
            if self._run is not None and self._loop is not None:
                asyncio.run_coroutine_threadsafe(self._run_quietly(task_id), self._loop).result()

        declare = self._dramatiq.actor(
            broker=self._broker, actor_name=ACTOR, queue_name=self._queue, max_age=MAX_AGE_MS
        )
        self._actor: Any = declare(task)

    async def _run_quietly(self, task_id: str) -> None:
        if self._run is not None:
            with contextlib.suppress(asyncio.CancelledError):  # this process ends; the task was given back
                await self._run(task_id)

    def send(self, task_ids: Sequence[str]) -> None:
        """See TaskCarrier."""
        if len(self._sending) >= SENDING_MAX:
            self.lost_count += len(task_ids)
            return
        sending = asyncio.get_running_loop().create_task(self._send(tuple(task_ids)), name="task-send")
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send(self, task_ids: tuple[str, ...]) -> None:
        for position, task_id in enumerate(task_ids):
            try:
                await asyncio.get_running_loop().run_in_executor(self._sender, self._actor.send, task_id)
            except (self._dramatiq.errors.BrokerError, OSError) as error:
                self.lost_count += len(task_ids) - position
                _log.warning("tasks.broker_lost", error=type(error).__name__, count=len(task_ids) - position)
                return

    async def start(self, run: Callable[[str], Awaitable[None]] | None) -> None:
        """See TaskCarrier."""
        self._run = run
        if run is None:
            return
        self._loop = asyncio.get_running_loop()
        worker = self._dramatiq.Worker(
            self._broker, worker_threads=WORKER_THREADS, worker_timeout=WORKER_TIMEOUT_MS, queues={self._queue}
        )
        await asyncio.to_thread(worker.start)
        self._worker = worker

    async def stop(self) -> None:
        """See TaskCarrier."""
        if self._sending:
            await asyncio.wait(self._sending, timeout=STOP_SECONDS)
        if self._worker is not None:
            # In a thread: the worker waits for actors, and those need this loop.
            await asyncio.to_thread(self._worker.stop, int(STOP_SECONDS * 1000))
            self._worker = None
        with contextlib.suppress(self._dramatiq.errors.BrokerError, OSError):
            await asyncio.to_thread(self._broker.close)
        self._sender.shutdown(wait=False, cancel_futures=True)


def _make_broker(kind: str, url: str, prefix: str) -> Any:
    """Without dramatiq's usual middleware: retries, delays and time limits are the table's business."""
    middleware = _age_limit()
    if kind == "redis":
        from dramatiq.brokers.redis import RedisBroker  # noqa: PLC0415 - only who uses it needs the library

        make: Any = RedisBroker
        return make(url=url, namespace=f"{prefix}:tasks", middleware=middleware, maintenance_chance=10_000)
    from dramatiq.brokers.rabbitmq import RabbitmqBroker  # noqa: PLC0415 - as above

    # Its default is False: a message that RabbitMQ never took would count as sent.
    return RabbitmqBroker(url=url, confirm_delivery=True, middleware=middleware)


def _age_limit() -> list[Any]:
    from dramatiq.middleware import AgeLimit  # noqa: PLC0415 - as above

    return [AgeLimit()]

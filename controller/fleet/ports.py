"""What the fleet needs from the layers above it; bootstrap hands it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.queue import JobRequest


class Asker(Protocol):
    """Who acts (controller.core.context.Actor)."""

    @property
    def reference(self) -> str: ...

    def require(self, noun: str, verb: str) -> None:
        """Raises ForbiddenError when they may not."""
        ...


class FleetOp(Protocol):
    """One use case in one transaction (controller.core.operations.FleetContext)."""

    @property
    def actor(self) -> Asker: ...

    @property
    def session(self) -> AsyncSession: ...

    @property
    def request_id(self) -> str: ...

    @property
    def now(self) -> datetime: ...

    async def ask(self, request: JobRequest) -> str:
        """Ask a node for something; the id of the job."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeNote:
    """One change, for the audit log (the fields of controller.core.context.Change)."""

    action: str
    target: str
    target_name: str
    before: dict[str, Any] | None = None
    after: dict[str, Any] | None = None


Recorder = Callable[[Any, ChangeNote], None]
"""Notes a change of the use case whose context is given (controller.core.audit)."""


def record_nothing(_op: Any, _note: ChangeNote) -> None:
    """For tests that look at other things."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What the accounts of one node were promised, added up."""

    accounts: int = 0
    memory_bytes: int = 0
    disk_bytes: int = 0


CommittedProvider = Callable[[AsyncSession], Awaitable[Mapping[str, Committed]]]
"""Node id to sums, for nodes that have accounts (those being deleted included)."""


async def nothing_committed(_session: AsyncSession) -> Mapping[str, Committed]:
    """For a fleet without accounts."""
    return {}


Reconverge = Callable[[str, bool], Awaitable[None]]
"""Ask for the accounts of a node again, in a transaction of its own: (node id, True for all of them; else only those
whose observed generation is behind and that have no unfinished job)."""


async def reconverge_nothing(_node_id: str, _is_everything: bool) -> None:  # noqa: FBT001 - positional by contract
    """For a fleet without accounts."""


UseCase = Callable[[FleetOp], Awaitable[Any]]

ChangeAsSystem = Callable[[UseCase], Awaitable[None]]
"""Run a use case as the controller itself, audited, in a transaction of its own."""


async def change_nothing(_use_case: UseCase) -> None:
    """For tests that look at other things."""


class Publisher(Protocol):
    """Tells the UI's websocket (controller.core.events)."""

    def publish(self, topic: str, event: str, data: Mapping[str, Any]) -> None: ...

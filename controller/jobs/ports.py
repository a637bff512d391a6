"""What the engine needs from those above it; bootstrap hands it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from controller.jobs.models import Job
from shared.protocol.envelope import Envelope
from shared.protocol.frames import DriftReport
from shared.protocol.job import JobResult


class Signer(Protocol):
    """Holds the job keys; may live in another process."""

    @property
    def cluster_id(self) -> str: ...

    async def sign_job(self, payload: bytes) -> Envelope:
        """Sign an encoded job with the current job key.

        Raises:
            UnavailableError: The signer does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """What a job must say about its node."""

    node_gen: int
    is_active: bool


class NodeDirectory(Protocol):
    """Who the nodes are, and which of them this process is connected to."""

    async def find_identity(self, session: AsyncSession, node_id: str) -> NodeIdentity | None: ...

    async def is_connected(self, session: AsyncSession, node_id: str) -> bool:
        """Whether some process of the controller has a session with the node."""
        ...

    def connected_since(self) -> Mapping[str, datetime]:
        """Node id to the begin of its session, for the nodes connected to this process."""
        ...

    def offer_soon(self, node_id: str) -> None:
        """A hint: there is something to send to this node. May be lost."""
        ...


class Publisher(Protocol):
    """Tells the UI's websocket."""

    def publish(self, topic: str, event: str, data: Mapping[str, Any]) -> None: ...


class NullPublisher:
    """Tells nobody."""

    def publish(self, topic: str, event: str, data: Mapping[str, Any]) -> None:
        """Drop it."""


ResultObserver = Callable[[AsyncSession, Job, JobResult], Awaitable[None]]
"""Called in the transaction that stores a node's final word about a job of mode apply."""

DriftObserver = Callable[[AsyncSession, str, DriftReport], Awaitable[None]]
"""Called with the node's id in the transaction that stores the event."""

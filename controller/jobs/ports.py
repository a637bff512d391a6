"""What the engine needs from those above it; bootstrap hands it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.prepared import Driver
from controller.jobs.delivery import Claimed, Signed
from controller.jobs.models import Job
from shared.protocol.envelope import Envelope
from shared.protocol.frames import DriftReport
from shared.protocol.job import ErrorBody, JobResult
from shared.protocol.update import UpdateReport


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
    """Who the nodes are, and which of them some process of the controller is connected to."""

    async def find_identities(self, driver: Driver, node_ids: Collection[str]) -> Mapping[str, NodeIdentity]:
        """Node id to what its jobs must say; nodes that are gone are left out."""
        ...

    async def is_connected(self, session: AsyncSession, node_id: str) -> bool:
        """Whether some process of the controller has a session with the node."""
        ...

    async def find_current(self, session: AsyncSession, epochs: Mapping[str, int]) -> set[str]:
        """Those of the nodes whose session (node id to epoch) still counts, until the transaction ends."""
        ...

    async def connected_since(self, session: AsyncSession) -> Mapping[str, datetime]:
        """Node id to the begin of its session, for the nodes connected to some process of the controller."""
        ...


class Courier(Protocol):
    """The gateway of this process, if it has one: what was just signed goes out without another transaction."""

    async def claim_signed(self, driver: Driver, signed: Sequence[Signed]) -> Claimed:
        """In the transaction that signed: what of it the sessions of this process send now."""
        ...

    def send(self, claimed: Claimed) -> None:
        """After its commit."""
        ...


class Publisher(Protocol):
    """Tells the UI's websocket."""

    def is_heard(self, topic: str) -> bool:
        """Whether anybody may hear what is published; who has much to say need not say it to nobody."""
        ...

    def publish(self, topic: str, event: str, data: Mapping[str, Any]) -> None: ...


class NullPublisher:
    """Tells nobody."""

    def is_heard(self, topic: str) -> bool:  # noqa: ARG002 - see Publisher
        """Never."""
        return False

    def publish(self, topic: str, event: str, data: Mapping[str, Any]) -> None:
        """Drop it."""


ResultObserver = Callable[[AsyncSession, Job, JobResult], Awaitable[None]]
"""Called in the transaction that stores a node's final word about a job of mode apply."""

UpdateObserver = Callable[[AsyncSession, str, UpdateReport], Awaitable[None]]
"""As DriftObserver, for how an update of the agent ended. Called again for a report that arrives twice."""

DriftObserver = Callable[[AsyncSession, str, DriftReport], Awaitable[None]]
"""Called with the node's id in the transaction that stores the event."""

RefusalObserver = Callable[[AsyncSession, Job, ErrorBody | None, datetime], Awaitable[None]]
"""Called in the transaction that stores a node's refusal of a job."""

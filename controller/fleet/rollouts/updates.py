"""Offers releases to the nodes that a rollout has asked, from whichever gateway holds their session."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy import or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from controller.db.engine import Database
from controller.fleet.models import Node
from controller.fleet.rollouts.models import Release, Rollout, RolloutNode, RolloutNodeState, RolloutState
from controller.fleet.rollouts.releases import Releases, download_path
from controller.jobs.loops import Loops
from shared.errors import FleetError
from shared.protocol.frames import OfferUpdate

POLL_SECONDS: Final = 2.0
OFFERS_AT_ONCE: Final = 200

_log = structlog.get_logger("controller.updates")

SendOffer = Callable[[str, OfferUpdate], Awaitable[bool]]
"""Node id and frame; False when this process has no session with the node."""


@dataclass(frozen=True, slots=True)
class _Due:
    """One offer that is to be made."""

    row_id: str
    attempt_id: str
    node_id: str
    session_epoch: int
    release_id: str


class UpdateOffers:
    """Once for each session until the node has answered: an offer that was lost is made again in the next one."""

    def __init__(
        self,
        database: Database,
        releases: Releases,
        send: SendOffer,
        *,
        gateway_id: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._database = database
        self._releases = releases
        self._send = send
        self._gateway_id = gateway_id
        self._clock = clock
        self._loops = Loops()

    def start(self) -> None:
        """Begin to look."""
        self._loops.spawn(self._run(), name="update-offers")

    async def stop(self) -> None:
        """Look no more."""
        await self._loops.stop()

    async def _run(self) -> None:
        while await self._loops.pause(POLL_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
            try:
                await self.offer_due()
            except (SQLAlchemyError, FleetError, OSError) as error:
                _log.warning("updates.offers_failed", error=str(error))

    async def offer_due(self) -> int:
        """Make the offers that are due now; how many."""
        due = await self._find_due()
        count = 0
        for offer in due:
            async with self._database.write() as session:
                release = await session.get(Release, offer.release_id)
                if release is None:
                    continue
                signed = await self._releases.ensure_signed(session, release, now=self._clock())
                path = download_path(release.build)
            if not await self._send(offer.node_id, OfferUpdate(attempt_id=offer.attempt_id, release=signed, path=path)):
                continue
            made = update(RolloutNode).where(RolloutNode.id == offer.row_id)
            async with self._database.write() as session:
                await session.execute(made.values(offered_epoch=offer.session_epoch))
            count += 1
        return count

    async def _find_due(self) -> list[_Due]:
        statement = (
            select(RolloutNode.id, RolloutNode.attempt_id, Node.id, Node.session_epoch, Rollout.release_id)
            .join(Node, Node.id == RolloutNode.node_id)
            .join(Rollout, Rollout.id == RolloutNode.rollout_id)
            .where(
                RolloutNode.state == RolloutNodeState.SENT,
                RolloutNode.attempt_id.is_not(None),
                or_(RolloutNode.offered_epoch.is_(None), RolloutNode.offered_epoch != Node.session_epoch),
                Rollout.state == RolloutState.RUNNING,
                Node.is_connected.is_(True),
                Node.gateway_id == self._gateway_id,
            )
            .limit(OFFERS_AT_ONCE)
        )
        async with self._database.read() as session:
            rows = (await session.execute(statement)).all()
        return [
            _Due(row_id, attempt_id or "", node_id, epoch, release_id or "")
            for row_id, attempt_id, node_id, epoch, release_id in rows
        ]

"""The traffic of jobs of one gateway: what its nodes shall get, and what they say, each for all sessions at once.

One transaction takes whatever has come together while the one before was being committed: a single job waits for
nobody, and three hundred a second need no more commits than the disk has. Nothing is said to a node before its commit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime
from typing import Final, NamedTuple, Protocol

import structlog
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from controller import faults
from controller.db.engine import Database
from controller.db.prepared import Driver, Prepared, any_of
from controller.fleet.gateway.sessions import is_current
from controller.fleet.models import KEEPS_JOBS, Node, NodeState
from controller.jobs import delivery, offers
from controller.jobs.engine import JobEngine
from controller.jobs.intake import Taken, Word, take_words
from controller.jobs.loops import Loops
from controller.jobs.ports import NodeIdentity
from controller.jobs.results import Recorded
from controller.jobs.signatures import TRUST_CODES
from shared.errors import FleetError
from shared.protocol.envelope import Envelope
from shared.protocol.frames import AckEvents, AckJob, CancelJob, Event, Frame, OfferJob, OfferTrust
from shared.protocol.job import JobState

BATCH: Final = 256
WAITING_MAX: Final = 2048
"""Words that wait for a transaction; whoever says more waits until there is room, and TCP tells the node."""

IDLE_SECONDS: Final = 60.0
LINGER_SECONDS: Final = 0.003
ACK_SECONDS: Final = 0.02
"""Acknowledgements of events wait so long, for nobody waits for them: the answer to whoever waits for the job goes
first, and a node with many events gets one for all. What is not said before the end the next welcome says."""

_CURRENT: Final = Prepared(
    select(Node.id, Node.session_epoch)
    .where(any_of(Node.id, "ids"), Node.state == NodeState.ACTIVE)
    .order_by(Node.id)
    .with_for_update(read=True, key_share=True)  # the answer stays true until the transaction ends: see is_current
)
_IDENTITIES: Final = Prepared(select(Node.id, Node.node_gen, Node.state).where(any_of(Node.id, "ids")))

_log = structlog.get_logger("controller.gateway")


class Line(Protocol):
    """A session, as seen from here."""

    node_id: str
    epoch: int

    def post(self, frames: Sequence[Frame]) -> None:
        """Send these in order, without waiting for it; what cannot be sent is offered or said again later."""
        ...

    async def give_up(self, error: SQLAlchemyError) -> None:
        """End the session: the database did not answer, so the node must say it again."""
        ...


class Lines(Protocol):
    """What the traffic needs of its gateway."""

    @property
    def database(self) -> Database: ...

    @property
    def engine(self) -> JobEngine: ...

    def now(self) -> datetime: ...

    async def trust_bundle(self) -> tuple[int, Envelope]:
        """Version and envelope of the bundle in force."""
        ...

    def find_line(self, node_id: str) -> Line | None:
        """The node's session in this process."""
        ...


class _Said(NamedTuple):
    line: Line
    frame: AckJob | Event


class Traffic:
    """Two loops: one out, one in."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._wanted: set[str] = set()
        self._full: set[str] = set()
        self._said: deque[_Said] = deque()
        self._acks: dict[Line, int] = {}
        self._has_wanted, self._has_said, self._has_room = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def start(self, loops: Loops) -> None:
        """Begin."""
        loops.spawn(self._run(loops, self._has_wanted, self.send_once), name="traffic-out")
        loops.spawn(self._run(loops, self._has_said, self.take_once), name="traffic-in")

    def want(self, node_id: str) -> None:
        """There may be something to send to this node."""
        self._wanted.add(node_id)
        self._has_wanted.set()

    async def say(self, line: Line, frame: AckJob | Event) -> None:
        """A node says something; it is taken in soon."""
        while len(self._said) >= WAITING_MAX:
            self._has_room.clear()
            await self._has_room.wait()
        self._said.append(_Said(line, frame))
        self._has_said.set()

    async def _run(self, loops: Loops, event: asyncio.Event, once: Callable[[], Awaitable[None]]) -> None:
        while await loops.pause_until(event, IDLE_SECONDS):
            event.clear()
            try:
                await once()
            except FleetError as error:
                _log.warning("gateway.traffic_failed", error=str(error))
        await once()  # what was said before the goodbye

    # --- out ----------------------------------------------------------------------------------------------------------

    async def send_once(self) -> None:
        """Claim for every session that is to be looked at, then send."""
        while self._wanted:
            wanted, self._wanted = self._wanted, set()
            if not any(self._lines.find_line(node_id) for node_id in wanted):
                continue
            try:
                async with self._lines.database.hot() as driver:
                    claimed = await self.claim(driver, wanted)
                    faults.at("offer.before_commit")
                faults.at("offer.after_commit")
            except SQLAlchemyError as error:
                _log.warning("gateway.database", error=str(error))  # the poll finds them again
                return
            self.send(claimed)

    async def claim(self, driver: Driver, node_ids: Collection[str]) -> delivery.Claimed:
        """In a transaction of somebody else: what the sessions of this process may send to these nodes."""
        mine = await self._epochs_of(driver, node_ids)
        return await delivery.claim(driver, mine, now=self._lines.now()) if mine else delivery.Claimed()

    async def claim_signed(self, driver: Driver, signed: Sequence[delivery.Signed]) -> delivery.Claimed:
        """In the transaction that signed these: what of them the sessions of this process may send now."""
        mine = await self._epochs_of(driver, {one.row.node_id for one in signed})
        if not mine:
            return delivery.Claimed()
        return await delivery.claim_signed(driver, mine, signed, now=self._lines.now())

    async def _epochs_of(self, driver: Driver, node_ids: Collection[str]) -> dict[str, int]:
        """Sessions of this process with these nodes, as far as they count until the transaction ends."""
        found = {node_id: self._lines.find_line(node_id) for node_id in node_ids}
        lines = {node_id: line for node_id, line in found.items() if line is not None}
        if not lines:
            return {}
        epochs = dict(await _CURRENT.fetch(driver, ids=list(lines)))
        return {node_id: line.epoch for node_id, line in lines.items() if epochs.get(node_id) == line.epoch}

    def send(self, claimed: delivery.Claimed) -> None:
        """After the commit: what is lost between the two is offered again later."""
        for node_id, claim in claimed.claims.items():
            line = self._lines.find_line(node_id)
            if line is not None:
                self._acknowledge_to(line)  # first, as it was committed first
                line.post(_frames_of(claim))
                (self._full.add if claim.is_full else self._full.discard)(node_id)
        if claimed.claims:
            faults.at("offer.after_send")
        self._lines.engine.announce_rows(claimed.changed)

    # --- in -----------------------------------------------------------------------------------------------------------

    async def take_once(self) -> None:
        """Take in everything that was said; a database that does not answer ends the sessions concerned."""
        while self._said:
            await self._linger()
            batch = [self._said.popleft() for _ in range(min(BATCH, len(self._said)))]
            self._has_room.set()
            try:
                left = await self._take_plain(batch)
            except SQLAlchemyError as error:
                # One word may be to blame, so each has a transaction of its own; if it is the database, none succeeds.
                _log.warning("gateway.database", error=str(error))
                left = list(range(len(batch)))
            for position in left:
                try:
                    await self._take_slowly(batch[position])
                except SQLAlchemyError as error:
                    await batch[position].line.give_up(error)

    async def _linger(self) -> None:
        """Give acknowledgements a moment for the results that follow most of them at once: half as many commits."""
        if all(isinstance(said.frame, AckJob) for said in self._said):
            self._has_said.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LINGER_SECONDS):
                    await self._has_said.wait()

    async def _take_plain(self, batch: Sequence[_Said]) -> list[int]:
        """Take in what is plain in one transaction; the positions of the rest, in order."""
        async with self._lines.database.hot() as driver:
            epochs = dict(await _CURRENT.fetch(driver, ids=sorted({said.line.node_id for said in batch})))
            mine = [n for n, said in enumerate(batch) if epochs.get(said.line.node_id) == said.line.epoch]
            words = [Word(batch[n].line.node_id, batch[n].frame) for n in mine]
            taken = await take_words(driver, words, now=self._lines.now()) if words else Taken()
            _reach(batch, "before_commit")
        _reach(batch, "after_commit")
        left = {mine[position] for position in taken.left}
        self._note_taken([batch[n] for n in mine if n not in left])
        engine = self._lines.engine
        engine.announce_rows(taken.changed)  # first who waits for the answer, then the jobs that come after
        if taken.has_ended:
            engine.notify()
        return sorted(left)

    def _note_taken(self, taken: Sequence[_Said]) -> None:
        for line, frame in taken:
            if isinstance(frame, Event):
                self._acknowledge_soon(line, frame.number)
            elif line.node_id in self._full:
                self.want(line.node_id)

    def _acknowledge_soon(self, line: Line, number: int) -> None:
        """After the commit; numbers are cumulative."""
        if not self._acks:
            asyncio.get_running_loop().call_later(ACK_SECONDS, self._acknowledge)
        self._acks[line] = max(self._acks.get(line, 0), number)

    def _acknowledge(self) -> None:
        for line in tuple(self._acks):
            self._acknowledge_to(line)

    def _acknowledge_to(self, line: Line) -> None:
        number = self._acks.pop(line, None)
        if number is not None:
            line.post((AckEvents(events_upto=number),))
            faults.at("event.after_ack")

    async def _take_slowly(self, said: _Said) -> None:
        line, frame = said
        if isinstance(frame, AckJob):
            await self._take_ack(line, frame)
        else:
            await self._take_event(line, frame)

    async def _take_ack(self, line: Line, frame: AckJob) -> None:
        engine = self._lines.engine
        async with self._lines.database.write() as session:
            if not await is_current(session, line.node_id, line.epoch):
                return
            job = await offers.record_ack(session, line.node_id, frame, now=self._lines.now())
            is_about_trust = frame.error is not None and frame.error.code in TRUST_CODES
            if is_about_trust:
                await engine.sign_again(session, line.node_id, frame.job_id)
            if frame.state is JobState.REFUSED:
                refused = job or await offers.find_by_delivery(session, line.node_id, frame.job_id)
                if refused is not None and (job is not None or is_about_trust):
                    await engine.note_refusal(session, refused, frame.error)
            faults.at("ack.before_commit")
        faults.at("ack.after_commit")
        if is_about_trust:
            # Before the job is offered again: what it misses may be just this.
            line.post((OfferTrust(envelope=(await self._lines.trust_bundle())[1]),))
        if job is not None:
            self.want(line.node_id)
            engine.notify()
            await engine.announce([job.id])

    async def _take_event(self, line: Line, frame: Event) -> None:
        engine = self._lines.engine
        recorded: Recorded
        async with self._lines.database.write() as session:
            if not await is_current(session, line.node_id, line.epoch):
                return
            recorded = await engine.record_event(session, line.node_id, frame)
            faults.at("event.before_commit")
        faults.at("event.after_commit")
        self._acknowledge_soon(line, frame.number)
        await engine.settle(recorded)


async def list_identities(driver: Driver, node_ids: Sequence[str]) -> dict[str, NodeIdentity]:
    """What jobs must say about these nodes; those that are gone are left out."""
    rows = await _IDENTITIES.fetch(driver, ids=node_ids)
    return {node_id: NodeIdentity(node_gen, state in KEEPS_JOBS) for node_id, node_gen, state in rows}


def _frames_of(claim: delivery.Claim) -> list[Frame]:
    jobs = (OfferJob(envelope=offer.envelope, job_id=offer.delivery_id, seq=offer.seq) for offer in claim.offers)
    return [*jobs, *(CancelJob(job_id=delivery_id) for delivery_id in claim.cancels)]


def _reach(batch: Sequence[_Said], place: str) -> None:
    """Fault points are named after what was said."""
    if any(isinstance(said.frame, AckJob) for said in batch):
        faults.at(f"ack.{place}")
    if any(isinstance(said.frame, Event) for said in batch):
        faults.at(f"event.{place}")

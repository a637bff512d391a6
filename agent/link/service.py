"""The link for ever: dial, run the session, wait, dial again. Also the timers: drift checks, the next certificate."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
from websockets.asyncio.client import ClientConnection

from agent.link.authorities import note_authorities, refresh_trust
from agent.link.backoff import Backoff, spread_interval_seconds
from agent.link.dial import Dialer, DialError
from agent.link.ending import EndKind, SessionEnd, next_delay_seconds
from agent.link.health import UnitStates
from agent.link.outbox import Outbox
from agent.link.port import ExecutorPort
from agent.link.processor import ProcessorMeter
from agent.link.relay import Relay
from agent.link.renewal import Renewer
from agent.link.session import Session, SessionHooks, close_quietly
from agent.link.spool import Spool
from agent.link.status_file import LinkState, LinkStatus, StatusFile
from agent.link.updates import NoUpdates, UpdateTaker
from agent.link.watchdog import Pulse, ServiceNotifier
from agent.link.witness import Witness
from shared.errors import FleetError, UnavailableError
from shared.protocol.capability import CAPABILITY_VERSION, OLDEST_CAPABILITY
from shared.protocol.frames import Hello, Welcome
from shared.protocol.local import CancelLocal, ExecutorStatus
from shared.version import __version__

DEFAULT_DRIFT_SECONDS: Final = 1800.0
"""Until a controller names another period; a node that never reaches it keeps looking after itself."""
SESSION_START_SECONDS: Final = 120.0
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")

_log = logging.getLogger(__name__)

_STATE_OF_END: Final = {EndKind.REVOKED: LinkState.REVOKED, EndKind.FATAL: LinkState.REJECTED}


class MachineIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What tells one machine, and one boot of it, from another."""

    boot_id: str
    machine_id_hash: str


def read_machine_identity(machine_id: Path) -> MachineIdentity:
    """Reads: /proc/sys/kernel/random/boot_id and the machine id; the id itself never leaves the machine.

    Source: machine-id(5) asks not to expose it: a hash is sent.
    """
    return MachineIdentity(
        boot_id=_BOOT_ID.read_text(encoding="ascii").strip(),
        machine_id_hash=hashlib.sha256(machine_id.read_bytes().strip()).hexdigest(),
    )


class LinkParts(msgspec.Struct, frozen=True, kw_only=True):
    """What a link is made of; the simulator and the tests bring their own."""

    dialer: Dialer
    renewer: Renewer
    executor: ExecutorPort
    spool: Spool
    machine: MachineIdentity
    sample: Callable[[], dict[str, float]]
    """Reads the node's gauges; runs in a thread."""
    status_file: StatusFile
    notifier: ServiceNotifier
    pulse: Pulse
    unit_states: UnitStates | None = None
    """Reads what systemd says of units; None where there is no systemd."""
    updates: UpdateTaker = NoUpdates()
    witness: Witness | None = None
    """None: it is shown no ends of the audit log."""
    processor: ProcessorMeter | None = None
    """None: nobody adds up processor time here."""


class LinkService:
    """Keeps one node connected."""

    def __init__(self, parts: LinkParts) -> None:
        self._parts = parts
        self._relay = Relay(parts.executor, parts.spool, Outbox(), unit_states=parts.unit_states)
        self._relay.on_trust = self._note_trust
        self._connection: ClientConnection | None = None
        self._backoff = Backoff()
        self._drift_seconds = DEFAULT_DRIFT_SECONDS
        self._drift_changed = asyncio.Event()
        self._session_epoch = 0
        self._last_error = ""

    async def run(self) -> None:
        """Run until cancelled."""
        timers = [
            asyncio.create_task(self._check_drift_for_ever(), name="drift-timer"),
            asyncio.create_task(self._parts.renewer.run(), name="renewal-timer"),
            asyncio.create_task(self._relay.health.run(), name="health-timer"),
            asyncio.create_task(self._relay.usage.run(), name="usage-timer"),
            asyncio.create_task(self._relay.room.run(self._reconnect), name="room-timer"),
            asyncio.create_task(self._parts.updates.run(self._relay.keep_update), name="updates"),
        ]
        if self._parts.processor is not None:
            timers.append(asyncio.create_task(self._parts.processor.run(), name="processor"))
        try:
            while True:
                end = await self._attempt()
                await self._dismiss_if_told(end)
                self._backoff = self._backoff.after_session(end.healthy_seconds)
                await self._wait(end)
        finally:
            for timer in timers:
                timer.cancel()
            await asyncio.gather(*timers, return_exceptions=True)
            self._write_status(LinkState.STOPPED)
            await self._parts.executor.close()

    async def _attempt(self) -> SessionEnd:
        self._parts.pulse.expect_within(SESSION_START_SECONDS)
        self._write_status(LinkState.CONNECTING)
        try:
            # The hello says what the executor has, so it is asked first; without it there is nothing to offer.
            status = await self._parts.executor.request_status()
            self._note_trust(status.ca_certificates)
            connection = await self._dial_or_learn()
        except UnavailableError as error:
            return SessionEnd(EndKind.LOST, error.message)
        except DialError as error:
            return error.end
        hooks = SessionHooks(
            on_welcome=self._note_welcome,
            on_beat=self._parts.pulse.expect_within,
            sample=self._parts.sample,
            on_update=self._parts.updates.offer,
            renew=self._parts.renewer.renew_now,
            witness=None if self._parts.witness is None else self._parts.witness.take,
        )
        self._connection = connection
        try:
            return await Session(connection, self._relay, hooks).run(self._make_hello(status))
        finally:
            self._connection = None
            await close_quietly(connection)

    async def _reconnect(self) -> None:
        """End the session, if there is one; the next one begins as after any loss."""
        if self._connection is not None:
            await close_quietly(self._connection)

    async def _dial_or_learn(self) -> ClientConnection:
        """Dial; whoever is not believed may have a new authority that this node slept through."""
        try:
            return await self._dial()
        except DialError as error:
            if error.end.kind is not EndKind.DISTRUST:
                raise
            dialer = self._parts.dialer
            try:
                has_news = await refresh_trust(dialer.settings, dialer.paths, self._parts.executor)
            except (FleetError, OSError) as reason:
                _log.warning("the newest trust bundle cannot be had: %s", reason)
                raise error from reason
            if not has_news:
                raise
        return await self._dial()

    async def _dial(self) -> ClientConnection:
        try:
            return await self._parts.dialer.dial()
        except DialError as error:
            if error.end.kind is not EndKind.EXPIRED:
                raise
            expired = error.end
        # The node was away for longer than the rest of its certificate: the timer alone would take up to an hour.
        await self._parts.renewer.renew_expired(expired)
        return await self._parts.dialer.dial()

    def _make_hello(self, status: ExecutorStatus) -> Hello:
        return Hello(
            capability=CAPABILITY_VERSION,
            oldest_capability=OLDEST_CAPABILITY,
            node_id=status.node_id,
            node_gen=status.node_gen,
            boot_id=self._parts.machine.boot_id,
            machine_id_hash=self._parts.machine.machine_id_hash,
            journal_epoch=status.journal_epoch,
            last_seq=status.last_seq,
            event_head=self._parts.spool.head,
            bundle_version=status.bundle_version,
            agent_version=__version__,
            build=self._parts.updates.build,
            clock=time.time(),
            modules=status.modules,
            seq_gaps=status.seq_gaps,
            can_witness=self._parts.witness is not None,
        )

    def _note_welcome(self, welcome: Welcome) -> None:
        self._session_epoch = welcome.session_epoch
        self._last_error = ""
        if welcome.drift_check_seconds > 0 and welcome.drift_check_seconds != self._drift_seconds:
            self._drift_seconds = welcome.drift_check_seconds
            self._drift_changed.set()
        self._write_status(LinkState.CONNECTED)
        _log.info("connected to %s, session %d", self._parts.dialer.settings.gateway_url, welcome.session_epoch)

    def _note_trust(self, certificates: tuple[bytes, ...]) -> None:
        try:
            note_authorities(self._parts.dialer.paths, certificates)
        except OSError as error:
            _log.warning("the authorities cannot be kept, they are asked for again: %s", error)

    async def _dismiss_if_told(self, end: SessionEnd) -> None:
        """Nothing may run any more for a controller that sent us away; what serves tenants is left alone."""
        if not end.is_dismissal:
            return
        for job_id in self._parts.executor.open_jobs:
            try:
                await self._parts.executor.send(CancelLocal(job_id=job_id))
            except UnavailableError as error:
                _log.warning("a job could not be cancelled: %s", error)
                return

    async def _wait(self, end: SessionEnd) -> None:
        self._last_error = end.message
        delay_seconds = next_delay_seconds(end, self._backoff, _chance())
        if delay_seconds is None:
            _log.error("%s; not trying again until the service is restarted", end.message)
            self._write_status(LinkState.REJECTED)
            await self._rest_for_ever()
            return
        _log.warning("%s; next attempt in %.1f s", end.message, delay_seconds)
        self._parts.pulse.expect_within(delay_seconds)
        state = _STATE_OF_END.get(end.kind, LinkState.WAITING)
        self._write_status(state, next_attempt_at=time.time() + delay_seconds)
        await asyncio.sleep(delay_seconds)

    async def _rest_for_ever(self) -> None:
        """Stay, so that systemd does not start us again at once; the reason stays visible in the status."""
        while True:
            self._parts.pulse.expect_within(DEFAULT_DRIFT_SECONDS)
            await asyncio.sleep(DEFAULT_DRIFT_SECONDS / 2)

    async def _check_drift_for_ever(self) -> None:
        while True:
            wait_seconds = spread_interval_seconds(self._drift_seconds, _chance())
            self._drift_changed.clear()
            try:
                async with asyncio.timeout(wait_seconds):
                    await self._drift_changed.wait()
                continue  # another period was named: count anew
            except TimeoutError:
                pass
            try:
                await self._relay.request_drift((), is_asked=False)
            except UnavailableError as error:
                _log.warning("no drift check this time: %s", error)

    def _write_status(self, state: LinkState, *, next_attempt_at: float = 0.0) -> None:
        status = LinkStatus(
            state=state,
            changed_at=time.time(),
            node_id=self._parts.dialer.settings.node_id,
            gateway_url=self._parts.dialer.settings.gateway_url,
            pid=os.getpid(),
            session_epoch=self._session_epoch,
            failures=self._backoff.failures,
            next_attempt_at=next_attempt_at,
            last_error=self._last_error,
            quarantine=self._relay.quarantine,
            build=self._parts.updates.build,
        )
        self._parts.status_file.write(status)
        self._parts.notifier.status(f"{state.value}: {self._last_error}" if self._last_error else state.value)


def _chance() -> float:
    return random.random()  # noqa: S311 - spreads a fleet in time, keeps no secret

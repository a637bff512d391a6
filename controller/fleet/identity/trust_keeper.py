"""Whom nodes shall believe, kept up to date: this process's certificate, the trust bundle, a change of the authority.

Every process of the controller has one. What it does is safe to do in several at once: the database decides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import structlog
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from controller import faults
from controller.db.engine import Database
from controller.fleet.identity.authority import Authority, ServerCertificate
from controller.fleet.identity.ca_models import CaPhase
from controller.fleet.identity.ca_plan import FINAL, wanted_issuer
from controller.fleet.identity.ca_rotation import CaRotations, find_rotation
from controller.fleet.identity.server_certificate import controller_identity, ensure_server_certificate
from controller.fleet.identity.trust import (
    NEWEST_TRUST,
    decode_envelope,
    ensure_trust_bundle,
    find_trust_bundle,
    list_trusted_authorities,
    render_pem,
)
from controller.fleet.ports import Recorder, record_nothing
from controller.fleet.signing.signer import LocalSigner, Signer
from controller.jobs.hints import Channel, Hints
from controller.jobs.loops import Loops
from controller.settings import Settings
from shared.errors import BugError, FleetError
from shared.protocol.envelope import Envelope

RENEWAL_SECONDS: Final = 3600.0
"""How often keys, bundle and server certificate are looked at."""
ROTATION_SECONDS: Final = 5.0
"""How often it is asked whether the authority is being replaced."""
_log = structlog.get_logger("controller.fleet")


async def want_nothing(_ca_id: str) -> None:
    """For processes that serve no agents."""


class TrustKeeper:
    """Order: `open` (afterwards `server_certificate` is there), then `start`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        signer: Signer,
        hints: Hints,
        clock: Callable[[], datetime],
        *,
        record: Recorder = record_nothing,
    ) -> None:
        self._settings = settings
        self._database = database
        self.signer = signer
        self._hints = hints
        self._clock = clock
        self._certificate: ServerCertificate | None = None
        self._loops = Loops()
        self._trust: tuple[int, Envelope] | None = None
        self._followed: tuple[str, CaPhase] | None = None
        self.rotations = CaRotations(signer, record)
        self.on_wanted_issuer: Callable[[str], Awaitable[None]] = want_nothing
        """Told, while the authority is being replaced, whose certificates nodes shall have."""
        self.on_certificate: list[Callable[[ServerCertificate], None]] = []
        """Told when this process has another certificate for its listeners."""

    # --- life ---------------------------------------------------------------------------------------------------------

    def open(self) -> ServerCertificate:
        """Reach the signer, which makes the keys at the first start, and make the server certificate. Again: renews it.

        Raises:
            UnavailableError: A key cannot be read, or the signer does not answer.
        """
        self.signer.open()
        # The last name is for the other processes of the controller, see stream_peers.py.
        names = (*self._settings.effective_public_names, controller_identity(self.signer.cluster_id))
        self._certificate = ensure_server_certificate(self.signer, self._settings.tls_dir, names, now=self._clock())
        return self._certificate

    async def start(self) -> None:
        """Make the first bundle, and look after everything from now on.

        Raises:
            UnavailableError: The signer does not answer.
        """
        await self.ensure_trust()
        self._loops.spawn(self._run_renewal(), name="fleet-renewal")
        self._loops.spawn(self._run_rotation(), name="fleet-rotation")

    async def stop(self) -> None:
        """End the tasks."""
        await self._loops.stop()

    async def _run_renewal(self) -> None:
        while await self._loops.pause(RENEWAL_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
            try:
                await self.renew()
            except (FleetError, SQLAlchemyError, OSError) as error:
                _log.warning("fleet.renewal_failed", error=str(error))

    async def _run_rotation(self) -> None:
        while await self._loops.pause(ROTATION_SECONDS * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
            try:
                await self.follow_rotation()
            except (FleetError, SQLAlchemyError, OSError) as error:
                _log.warning("fleet.rotation_failed", error=str(error))

    async def follow_rotation(self) -> None:
        """Do what the newest change of the authority asks of this process. Without one: nothing but one query."""
        async with self._database.read() as session:
            rotation = await find_rotation(session)
        if rotation is None:
            return
        if rotation.settled_phase is not rotation.phase:
            await self.settle()
        key = (rotation.id, rotation.phase)
        if key != self._followed:
            await self.renew_certificate()
            self._followed = key
        if rotation.phase not in FINAL:
            await self.on_wanted_issuer(wanted_issuer(rotation))

    async def settle(self) -> None:
        """Bring signer and bundle into the phase of the newest change, and tell the gateways."""
        async with self._database.write() as session:
            version = await self.rotations.settle(session, now=self._clock())
            faults.at("trust.before_commit")
        faults.at("trust.after_commit")
        _log.info("fleet.authorities", bundle_version=version)
        self._hints.send(Channel.TRUST)

    async def renew(self) -> None:
        """Renew what is due: server certificate, job key, trust bundle."""
        await self.renew_certificate()
        version = (await self.read_trust())[0]
        newest = (await self.ensure_trust())[0]
        if newest > version:
            self._hints.send(Channel.TRUST)

    async def renew_certificate(self) -> None:
        """See that this process's certificate is of the authority that issues now, and lasts."""
        before = self._certificate
        content = before.chain_path.read_bytes() if before is not None else b""
        # The signer may be another process, and asking it blocks for a moment.
        certificate = await asyncio.to_thread(self.open)
        if certificate.chain_path.read_bytes() != content:
            for tell in self.on_certificate:
                tell(certificate)

    # --- what others ask ----------------------------------------------------------------------------------------------

    @property
    def server_certificate(self) -> ServerCertificate:
        """For listeners, once the keys are open."""
        if self._certificate is None:
            raise BugError("the fleet's keys were not opened")
        return self._certificate

    @property
    def authority(self) -> Authority:
        """The authority that issues now, with its key: only where the signer lives in this process."""
        if not isinstance(self.signer, LocalSigner):
            raise BugError("this process holds no keys")
        return self.signer.authority

    async def read_ca_pem(self) -> str:
        """Every authority that the fleet trusts now, as PEM."""
        await self.read_trust()  # makes the first bundle
        async with self._database.read() as session:
            return render_pem(await list_trusted_authorities(session))

    async def read_trust(self) -> tuple[int, Envelope]:
        """Version and envelope of the bundle in force; the envelope is read once for each version."""
        versions = await self._database.glance(NEWEST_TRUST)
        if self._trust is not None and versions and versions[0][0] == self._trust[0]:
            return self._trust
        async with self._database.read() as session:
            row = await find_trust_bundle(session)
        self._trust = (row.version, decode_envelope(row.envelope)) if row is not None else await self.ensure_trust()
        return self._trust

    async def ensure_trust(self) -> tuple[int, Envelope]:
        """The same, after making a newer one if keys or authorities changed."""
        try:
            return await self._ensure_trust()
        except IntegrityError:
            return await self._ensure_trust()  # another process made this version at the same moment

    async def _ensure_trust(self) -> tuple[int, Envelope]:
        async with self._database.write() as session:
            row = await ensure_trust_bundle(session, signer=self.signer, now=self._clock())
            faults.at("trust.before_commit")
        faults.at("trust.after_commit")
        return row.version, decode_envelope(row.envelope)

"""What an administrator does to job keys: look, rotate, revoke. Nodes follow by the trust bundle, not by enrolling."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.identity.trust import ensure_trust_bundle, find_trust_bundle
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from controller.fleet.signing.signer import Signer
from controller.jobs.signatures import sign_again_without
from shared.errors import ConflictError, NotFoundError
from shared.protocol.trust import JobKey


class JobKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """A key that signs jobs, or that nodes are told not to believe."""

    kid: str
    state: Annotated[str, Meta(description="signing or revoked.")]
    not_before: datetime | None
    expires_at: datetime | None


class JobKeysView(msgspec.Struct, frozen=True, kw_only=True):
    """All of them, with the bundle that carries them to the nodes."""

    items: tuple[JobKeyView, ...]
    bundle_version: int


class JobKeyDrill:
    """Use cases; each runs in the transaction of its context."""

    def __init__(self, signer: Signer, record: Recorder) -> None:
        self._signer = signer
        self._record = record

    async def show(self, session: AsyncSession) -> JobKeysView:
        """The keys, oldest first."""
        signing = tuple(_view(key) for key in await self._signer.current_job_keys())
        revoked = tuple(
            JobKeyView(kid=kid, state="revoked", not_before=None, expires_at=None)
            for kid in await self._signer.revoked_job_keys()
        )
        bundle = await find_trust_bundle(session)
        return JobKeysView(items=revoked + signing, bundle_version=bundle.version if bundle is not None else 0)

    async def rotate(self, op: FleetOp, *, is_dry_run: bool) -> JobKeysView:
        """A new key signs from now on; the others sign beside it for the overlap, and then end.

        Raises:
            ForbiddenError
            UnavailableError: The signer does not answer.
        """
        op.actor.require("authority", "write")
        # The signer is no part of the transaction: within a minute the same rotation answers with the same key.
        kid = "the new key" if is_dry_run else (await self._signer.rotate_job_key()).kid
        await ensure_trust_bundle(op.session, signer=self._signer, now=op.now)
        self._note(op, "job_key.rotate", kid)
        return await self.show(op.session)

    async def revoke(self, op: FleetOp, kid: str, *, is_dry_run: bool) -> tuple[JobKeysView, list[str]]:
        """Nobody shall believe this key any more. What it signed and no node has yet is signed anew.

        Returns the keys, and the nodes that have something to fetch.

        Raises:
            ForbiddenError
            NotFoundError: There is no such key.
            ConflictError: It is revoked already.
            UnavailableError: The signer does not answer.
        """
        op.actor.require("authority", "write")
        if kid in await self._signer.revoked_job_keys():
            raise ConflictError(f"the job key {kid} is revoked already")
        if kid not in {key.kid for key in await self._signer.current_job_keys()}:
            raise NotFoundError(f"there is no job key {kid[:40]!r}")
        node_ids: list[str] = []
        if not is_dry_run:
            await self._signer.revoke_job_key(kid)
            # In one transaction with the new signatures: no node gets those before it can have the bundle.
            await ensure_trust_bundle(op.session, signer=self._signer, now=op.now)
            node_ids = await sign_again_without(op.session, {kid}, signer=self._signer)
        self._note(op, "job_key.revoke", kid)
        return await self.show(op.session), node_ids

    def _note(self, op: FleetOp, action: str, kid: str) -> None:
        self._record(op, ChangeNote(action=action, target=f"job_key/{kid}", target_name=kid, after={"kid": kid}))


def _view(key: JobKey) -> JobKeyView:
    return JobKeyView(
        kid=key.kid,
        state="signing",
        not_before=datetime.fromtimestamp(key.not_before, UTC),
        expires_at=datetime.fromtimestamp(key.expires_at, UTC),
    )

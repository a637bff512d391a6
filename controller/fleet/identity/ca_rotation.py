"""Replacing the certificate authority while the fleet works, one phase at a time and back again until the last.

A node that is asleep holds the change up for as long as its certificate lasts, a week at most; later it comes back
through a renewal, which gives it one of the authority that issues then.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.identity import ca_plan
from controller.fleet.identity.authorities import AuthorityInfo
from controller.fleet.identity.ca_models import CaPhase, CaRotation
from controller.fleet.identity.ca_plan import NodeStanding
from controller.fleet.identity.trust import ensure_trust_bundle
from controller.fleet.models import Node, NodeCertificate, NodeState
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from controller.fleet.signing.signer import Signer
from shared.errors import ConflictError

NAMED_MAX: Final = 100
"""So many of the nodes that hold a phase up are named; the number of all is always said."""


class CaBlocker(msgspec.Struct, frozen=True, kw_only=True):
    """A node that holds the next phase up."""

    node_id: str
    name: str
    reason: str


class CaAuthorityView(msgspec.Struct, frozen=True, kw_only=True):
    """An authority that the fleet believes."""

    id: str
    pin: Annotated[str, Meta(description="SHA-256 of its public key in hex, as enrolment tokens have it.")]
    not_after: datetime
    issues: Annotated[tuple[str, ...], Meta(description="nodes, servers, or nothing (any more, or yet).")]


class CaRotationView(msgspec.Struct, frozen=True, kw_only=True):
    """The change of the authority that runs, or the last one."""

    id: str | None
    phase: Annotated[str, Meta(description="standby when none was ever begun.")]
    phase_since: datetime | None
    is_open: bool
    is_settled: Annotated[bool, Meta(description="False for a moment after each step, while keys and bundle follow.")]
    old_ca: str | None
    new_ca: str | None
    reason: str
    next_phase: str | None
    can_advance: bool
    can_roll_back: bool
    blocked_by: int
    blockers: Annotated[tuple[CaBlocker, ...], Meta(description=f"The first {NAMED_MAX} of them.")]
    authorities: tuple[CaAuthorityView, ...]


class CaRotations:
    """Use cases and what follows them."""

    def __init__(self, signer: Signer, record: Recorder) -> None:
        self._signer = signer
        self._record = record

    # --- use cases ----------------------------------------------------------------------------------------------------

    async def start(self, op: FleetOp, reason: str) -> CaRotation:
        """Begin: nodes shall learn of a new authority.

        Raises:
            ForbiddenError
            ConflictError: A change is under way.
        """
        op.actor.require("authority", "write")
        last = await find_rotation(op.session)
        if last is not None and last.phase not in ca_plan.FINAL:
            raise ConflictError(f"a change of the authority is under way: it is in phase {last.phase.value}")
        authorities = await self._signer.list_authorities()
        rotation = CaRotation(
            phase=CaPhase.INIT,
            phase_since=op.now,
            old_ca=authorities.issuer,
            new_ca=f"{op.now:%Y%m%d}-{secrets.token_hex(3)}",
            reason=reason,
            started_by=op.actor.reference,
            created_at=op.now,
            updated_at=op.now,
        )
        op.session.add(rotation)
        await op.session.flush()
        self._note(op, rotation, "ca_rotation.start", None)
        return rotation

    async def advance(self, op: FleetOp) -> CaRotation:
        """Go on to the next phase; after the last one there is no way back.

        Raises:
            ForbiddenError
            ConflictError: None is under way, or `rotation_blocked`: nodes are not ready.
        """
        op.actor.require("authority", "write")
        rotation = await self._get_open(op.session)
        if rotation.settled_phase is not rotation.phase:
            raise ConflictError("the present phase has only just begun", code="rotation_blocked", hint="Try again.")
        blockers = await self.find_blockers(op.session, rotation, now=op.now)
        if blockers:
            first = ", ".join(blocker.name for blocker in blockers[:5])
            raise ConflictError(
                f"{len(blockers)} nodes are not ready: {first}",
                code="rotation_blocked",
                hint="wcp360 ca-rotation show says why. A node that will not come back can be revoked.",
                context={"blocked_by": len(blockers)},
            )
        await self._enter(op, rotation, ca_plan.NEXT[rotation.phase], "ca_rotation.advance")
        return rotation

    async def roll_back(self, op: FleetOp) -> CaRotation:
        """Let the old authority issue everything again. `advance` ends it once all nodes are back with the old one.

        Raises:
            ForbiddenError
            ConflictError: None is under way, or it is being rolled back already.
        """
        op.actor.require("authority", "write")
        rotation = await self._get_open(op.session)
        if rotation.phase not in ca_plan.REVERSIBLE:
            raise ConflictError("the change is being rolled back already")
        await self._enter(op, rotation, CaPhase.ROLLBACK, "ca_rotation.rollback")
        return rotation

    async def _enter(self, op: FleetOp, rotation: CaRotation, phase: CaPhase, action: str) -> None:
        before = _state_of(rotation)
        rotation.phase, rotation.phase_since, rotation.updated_at = phase, op.now, op.now
        if phase in ca_plan.FINAL:
            rotation.finished_at = op.now
        await op.session.flush()
        self._note(op, rotation, action, before)

    # --- what follows -------------------------------------------------------------------------------------------------

    async def settle(self, session: AsyncSession, *, now: datetime) -> int:
        """Bring signer and trust bundle into the phase of the newest change; returns the bundle's version.

        Doing it again, or in two processes at once, changes nothing: the row is locked and decides.
        """
        rotation = await find_rotation(session, is_locked=True)
        if rotation is not None:
            await self._signer.arrange_authorities(ca_plan.arrangement_of(rotation))
        bundle = await ensure_trust_bundle(session, signer=self._signer, now=now)
        if rotation is not None and rotation.settled_phase is not rotation.phase:
            rotation.settled_phase = rotation.phase
            rotation.bundle_version = rotation.bundle_version or bundle.version
            if rotation.phase in ca_plan.FINAL:
                await _retire_certificates(session, keep=ca_plan.wanted_issuer(rotation), now=now)
            await session.flush()
        return bundle.version

    # --- looking ------------------------------------------------------------------------------------------------------

    async def find_blockers(self, session: AsyncSession, rotation: CaRotation, *, now: datetime) -> list[CaBlocker]:
        """Nodes that hold the next phase up, by name."""
        standings = await list_standings(session, now=now)
        reasons = ((standing, ca_plan.find_obstacle(rotation, standing)) for standing in standings)
        return [CaBlocker(node_id=node.node_id, name=node.name, reason=reason) for node, reason in reasons if reason]

    async def show(self, session: AsyncSession, *, now: datetime) -> CaRotationView:
        """How far it is, and what the next phase waits for."""
        rotation = await find_rotation(session)
        authorities = await self._signer.list_authorities()
        views = tuple(
            _view_authority(info, issuer=authorities.issuer, server_issuer=authorities.server_issuer)
            for info in authorities.trusted
        )
        if rotation is None:
            return _view_standby(authorities=views)
        is_open = rotation.phase not in ca_plan.FINAL
        is_settled = rotation.settled_phase is rotation.phase
        blockers = await self.find_blockers(session, rotation, now=now) if is_open and is_settled else []
        following = ca_plan.NEXT.get(rotation.phase)
        return CaRotationView(
            id=rotation.id,
            phase=rotation.phase.value,
            phase_since=rotation.phase_since,
            is_open=is_open,
            is_settled=is_settled,
            old_ca=rotation.old_ca,
            new_ca=rotation.new_ca,
            reason=rotation.reason,
            next_phase=following.value if following is not None else None,
            can_advance=is_open and is_settled and not blockers,
            can_roll_back=rotation.phase in ca_plan.REVERSIBLE,
            blocked_by=len(blockers),
            blockers=tuple(blockers[:NAMED_MAX]),
            authorities=views,
        )

    async def _get_open(self, session: AsyncSession) -> CaRotation:
        rotation = await find_rotation(session, is_locked=True)
        if rotation is None or rotation.phase in ca_plan.FINAL:
            raise ConflictError("no change of the authority is under way", hint="wcp360 ca-rotation start")
        return rotation

    def _note(self, op: FleetOp, rotation: CaRotation, action: str, before: dict[str, Any] | None) -> None:
        note = ChangeNote(
            action=action,
            target=f"ca_rotation/{rotation.id}",
            target_name=f"{rotation.old_ca} to {rotation.new_ca}",
            before=before,
            after=_state_of(rotation),
        )
        self._record(op, note)


async def find_rotation(session: AsyncSession, *, is_locked: bool = False) -> CaRotation | None:
    """The newest change of the authority, open or ended."""
    statement = select(CaRotation).order_by(CaRotation.id.desc()).limit(1)
    if is_locked:
        statement = statement.with_for_update()
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one_or_none()


async def list_standings(session: AsyncSession, *, now: datetime) -> Sequence[NodeStanding]:
    """Active nodes with a certificate in force, by name. One that has none comes back through a renewal."""
    in_force = (NodeCertificate.revoked_at.is_(None), NodeCertificate.not_after > now)
    # Of the certificates in force the newest that was used counts, else the newest: ids grow with time.
    newest = func.max(NodeCertificate.id)
    used = select(NodeCertificate.node_id, newest.label("used_id")).where(
        *in_force, NodeCertificate.used_at.is_not(None)
    )
    issued = select(NodeCertificate.node_id, newest.label("issued_id")).where(*in_force)
    used_by = used.group_by(NodeCertificate.node_id).subquery()
    issued_to = issued.group_by(NodeCertificate.node_id).subquery()
    statement = (
        select(Node, NodeCertificate.issuer)
        .join(issued_to, issued_to.c.node_id == Node.id)
        .outerjoin(used_by, used_by.c.node_id == Node.id)
        .join(NodeCertificate, NodeCertificate.id == func.coalesce(used_by.c.used_id, issued_to.c.issued_id))
        .where(Node.state == NodeState.ACTIVE)
        .order_by(Node.name)
    )
    return [
        NodeStanding(
            node_id=node.id,
            name=node.name,
            is_connected=node.is_connected,
            capability=node.capability,
            bundle_version=node.bundle_version,
            issuer=issuer,
        )
        for node, issuer in (await session.execute(statement)).all()
    ]


async def _retire_certificates(session: AsyncSession, *, keep: str, now: datetime) -> None:
    """What the dropped authority issued and is still in force; every node has used a newer one by now.

    Those that have ended stay as they are: they still prove who a node is when it comes back (renewal.GRACE).
    """
    left = update(NodeCertificate).where(
        NodeCertificate.issuer != keep, NodeCertificate.revoked_at.is_(None), NodeCertificate.not_after > now
    )
    await session.execute(left.values(revoked_at=now), execution_options={"synchronize_session": False})


def _view_authority(info: AuthorityInfo, *, issuer: str, server_issuer: str) -> CaAuthorityView:
    does = (("nodes", issuer), ("servers", server_issuer))
    return CaAuthorityView(
        id=info.ca_id,
        pin=info.pin,
        not_after=info.certificate.not_valid_after_utc,
        issues=tuple(what for what, ca_id in does if ca_id == info.ca_id),
    )


def _view_standby(*, authorities: tuple[CaAuthorityView, ...]) -> CaRotationView:
    return CaRotationView(
        id=None,
        phase="standby",
        phase_since=None,
        is_open=False,
        is_settled=True,
        old_ca=None,
        new_ca=None,
        reason="",
        next_phase=None,
        can_advance=False,
        can_roll_back=False,
        blocked_by=0,
        blockers=(),
        authorities=authorities,
    )


def _state_of(rotation: CaRotation) -> dict[str, Any]:
    return {
        "phase": rotation.phase.value,
        "old_ca": rotation.old_ca,
        "new_ca": rotation.new_ca,
        "reason": rotation.reason,
    }

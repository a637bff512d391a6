"""What a session writes: its epoch, the node's latest word about itself, presence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import CursorResult, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.gateway.quarantine import note_machine
from controller.fleet.models import Heartbeat, Node, NodeCertificate, NodeState
from controller.fleet.nodes.manifest import ensure_role_modules, next_node_request
from controller.jobs.models import Job
from controller.jobs.queue import request_job
from controller.jobs.results import read_inbox
from controller.jobs.states import ON_NODE, UNFINISHED, JobState
from controller.jobs.transitions import transition
from shared.errors import FleetError, ForbiddenError
from shared.protocol.frames import Hello
from shared.protocol.job import Semantics
from shared.specs.manifest import NODE_SUBJECT

_ACTOR: Final = "system/controller"


@dataclass(frozen=True, slots=True)
class Admitted:
    """Whose certificate it was."""

    node_id: str
    not_after: datetime
    certificate_id: str = ""
    issuer: str = ""
    """Id of the authority that issued the certificate."""
    is_first_use: bool = False
    """No session began with this certificate before."""


@dataclass(frozen=True, slots=True)
class OpenedSession:
    """What a session starts with."""

    epoch: int
    events_acked: int
    is_journal_new: bool
    """The node's journal is not the one we knew: everything it had is to be asked for again."""
    changed_jobs: tuple[str, ...]
    suspicion: str = ""
    """Why the node has to be put in quarantine instead of being served."""


async def admit(session: AsyncSession, fingerprint: str, *, now: datetime) -> Admitted:
    """Who shows this certificate.

    Raises:
        ForbiddenError: `certificate_unknown`, `duplicate_identity`, `revoked`, `certificate_superseded` or
            `certificate_expired`.
    """
    statement = select(NodeCertificate, Node).join(Node, Node.id == NodeCertificate.node_id)
    found = (await session.execute(statement.where(NodeCertificate.fingerprint == fingerprint))).first()
    if found is None:
        raise ForbiddenError("this certificate is not known here", code="certificate_unknown")
    certificate, node = found
    if node.state is NodeState.QUARANTINED:
        raise ForbiddenError("two machines use this identity", code="duplicate_identity")
    if node.state is not NodeState.ACTIVE:
        raise ForbiddenError("this node was revoked", code="revoked")
    if certificate.revoked_at is not None:
        # A copy of the node from before it renewed: the node itself has used a newer one since.
        raise ForbiddenError("a newer certificate of this node is in use", code="certificate_superseded")
    if certificate.not_after <= now:
        raise ForbiddenError("this certificate has ended", code="certificate_expired")
    return Admitted(
        node.id,
        certificate.not_after,
        certificate_id=certificate.id,
        issuer=certificate.issuer,
        is_first_use=certificate.used_at is None,
    )


async def note_first_use(session: AsyncSession, admitted: Admitted, *, now: datetime) -> None:
    """The node has this certificate in use, so its earlier ones are worthless from now on, wherever copies lie."""
    if not admitted.is_first_use:
        return
    quiet = {"synchronize_session": False}
    used = update(NodeCertificate).where(NodeCertificate.id == admitted.certificate_id).values(used_at=now)
    await session.execute(used, execution_options=quiet)
    older = update(NodeCertificate).where(
        NodeCertificate.node_id == admitted.node_id,
        NodeCertificate.id < admitted.certificate_id,
        NodeCertificate.revoked_at.is_(None),
    )
    await session.execute(older.values(revoked_at=now), execution_options=quiet)


async def open_session(session: AsyncSession, hello: Hello, *, gateway_id: str, now: datetime) -> OpenedSession:
    """Take the session over from whoever had it, and compare what the node says with what we knew.

    Raises:
        FleetError: `wrong_node_generation`: the agent runs with the identity of an earlier enrolment.
    """
    node = (
        await session.execute(
            select(Node).where(Node.id == hello.node_id).with_for_update().execution_options(populate_existing=True)
        )
    ).scalar_one()
    if node.node_gen != hello.node_gen:
        raise FleetError(
            "this machine was enrolled anew since; its agent still has the old identity",
            code="wrong_node_generation",
        )
    suspicion = note_machine(node, hello, now=now)
    is_journal_new = bool(node.journal_epoch) and node.journal_epoch != hello.journal_epoch
    node.session_epoch += 1
    node.gateway_id, node.is_connected, node.connected_at, node.last_seen_at = gateway_id, True, now, now
    node.boot_id, node.journal_epoch = hello.boot_id[:64], hello.journal_epoch[:64]
    node.capability, node.agent_version = hello.capability, hello.agent_version[:32]
    node.agent_build = hello.build[:64]
    node.bundle_version, node.modules_available = hello.bundle_version, dict(hello.modules)
    await session.flush()
    if await ensure_role_modules(session, node):  # a newer agent knows more; it is told below
        node.desired_generation += 1
        await session.flush()
    await write_heartbeats(session, {node.id: now})
    acked = await read_inbox(session, node.id, hello.journal_epoch[:64], hello.event_head)
    changed = await _give_up_jobs(session, node.id, now) if is_journal_new else []
    changed += await _catch_up_node(session, node, is_everything=is_journal_new, now=now)
    return OpenedSession(node.session_epoch, acked, is_journal_new, tuple(changed), suspicion)


async def close_session(session: AsyncSession, node_id: str, epoch: int, *, now: datetime) -> bool:
    """The node is not connected any more; False when a newer session is."""
    leave = update(Node).where(Node.id == node_id, Node.session_epoch == epoch, Node.is_connected.is_(True))
    leave = leave.values(is_connected=False, gateway_id=None, last_seen_at=now)
    return await _count(session, leave) == 1


async def note_bundle(session: AsyncSession, node_id: str, epoch: int, version: int) -> None:
    """Which trust bundle the node believes now, as its session says."""
    told = update(Node).where(Node.id == node_id, Node.session_epoch == epoch).values(bundle_version=version)
    await session.execute(told, execution_options={"synchronize_session": False})


async def is_current(session: AsyncSession, node_id: str, epoch: int) -> bool:
    """Whether this is still the node's session: a session that was taken over writes nothing more.

    The lock (on PostgreSQL) keeps the answer true until the transaction ends: `open_session` takes the row FOR UPDATE.
    """
    current = select(Node.session_epoch).where(Node.id == node_id, Node.state == NodeState.ACTIVE)
    current = current.with_for_update(read=True, key_share=True)
    return (await session.execute(current)).scalar_one_or_none() == epoch


async def write_heartbeats(session: AsyncSession, beats: Mapping[str, datetime]) -> None:
    """When these nodes were heard last, in one statement."""
    if not beats:
        return
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    statement = insert(Heartbeat).values([{"id": node_id, "at": at} for node_id, at in sorted(beats.items())])
    later = {"at": statement.excluded.at}
    is_later = statement.excluded.at > Heartbeat.at
    await session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=later, where=is_later))


async def mark_silent(session: AsyncSession, *, silent_since: datetime) -> list[str]:
    """Nodes that some process left as connected and that were not heard since; returns their ids."""
    heard = select(Heartbeat.id).where(Heartbeat.id == Node.id, Heartbeat.at > silent_since).exists()
    silent = update(Node).where(Node.is_connected.is_(True), ~heard).values(is_connected=False, gateway_id=None)
    result = await session.execute(silent.returning(Node.id).execution_options(synchronize_session=False))
    return list(result.scalars())


async def _give_up_jobs(session: AsyncSession, node_id: str, now: datetime) -> list[str]:
    """The node's journal is gone: nobody can say what became of what it had."""
    on_node = Job.state.in_(ON_NODE) | ((Job.state == JobState.OFFERED) & (Job.semantics == Semantics.ONCE))
    ids = list((await session.execute(select(Job.id).where(Job.node_id == node_id, on_node))).scalars())
    note = "the node lost its journal"
    error = {"error_code": "journal_lost", "error_message": note, "error_hint": "Its subjects are converged again."}
    for job_id in ids:
        sources = ON_NODE | {JobState.OFFERED}
        await transition(session, job_id, sources, JobState.INDETERMINATE, now=now, note=note, **error)
    return ids


async def _catch_up_node(session: AsyncSession, node: Node, *, is_everything: bool, now: datetime) -> list[str]:
    """Ask for the node's own manifest again if it never got there."""
    is_behind = node.observed_generation < node.desired_generation
    if node.desired_generation == 0 or not (is_behind or is_everything):
        return []
    unfinished = select(Job.id).where(
        Job.node_id == node.id, Job.resource_key == NODE_SUBJECT, Job.state.in_(UNFINISHED)
    )
    if (await session.execute(unfinished.limit(1))).first() is not None:
        return []
    request = await next_node_request(session, node, actor=_ACTOR, request_id="reconnect", reason="catch up")
    return [await request_job(session, request, now=now)]


async def _count(session: AsyncSession, statement: Any) -> int:
    result = await session.execute(statement, execution_options={"synchronize_session": False})
    return result.rowcount if isinstance(result, CursorResult) else 0

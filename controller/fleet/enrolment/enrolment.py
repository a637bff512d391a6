"""How a machine becomes a node: token, certificate request, approval.

Refusals are values here, not exceptions: a wrong secret must be counted in the transaction that refuses it.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.enrolment import tokens
from controller.fleet.enrolment.requests import require_request
from controller.fleet.enrolment.words import render_words
from controller.fleet.identity.authority import IssuedCertificate, csr_digest, parse_csr
from controller.fleet.identity.trust import ensure_trust_bundle, list_trusted_authorities, render_pem
from controller.fleet.models import (
    ApprovalMode,
    Enrolment,
    EnrolmentTokenRow,
    Node,
    NodeCertificate,
    NodeState,
)
from controller.fleet.nodes.manifest import ensure_role_modules, next_node_request
from controller.fleet.nodes.names import find_free_name, name_from_hostname
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from controller.fleet.signing.signer import Signer
from controller.jobs.commands import release_node_jobs
from shared.errors import ConflictError, FleetError, ForbiddenError, NotFoundError
from shared.protocol.enrolment import EnrolmentReply, EnrolmentRequest, EnrolmentState, parse_enrolment_token

REPLAY_TIME: Final = timedelta(minutes=10)
"""How long the same request gets the same certificate again, after a lost answer."""


class Enrolments:
    """Use cases of enrolment. `gateway_url` is what approved nodes are told to dial."""

    def __init__(self, *, signer: Signer, gateway_url: str, record: Recorder) -> None:
        self._signer = signer
        self._gateway_url = gateway_url
        self._record = record

    async def enrol(self, op: FleetOp, request: EnrolmentRequest, *, address: str) -> EnrolmentReply | FleetError:
        """Answer a machine that shows a token. Returned errors are to be committed, then raised.

        Raises:
            InvalidInputError: The request makes no sense; nothing is counted.
        """
        token = parse_enrolment_token(request.token)
        require_request(request)
        csr = parse_csr(request.csr_pem)
        row = await tokens.find_token(op.session, token.token_id)
        fault = tokens.find_fault(row, token.secret)
        if row is None or fault is not None:
            if row is not None:
                await tokens.note_failure(op.session, row)
            return fault or tokens.used_error()
        csr_hash = csr_digest(csr)
        known = await _find_enrolment(op.session, csr_hash)
        if known is not None and known.token_id == token.token_id:
            return await self._answer_again(op, known)
        obstacle = tokens.find_obstacle(row, address=address, csr_hash=csr_hash, now=op.now)
        if obstacle is None and (known is not None or not await tokens.claim_token(op.session, row, now=op.now)):
            obstacle = tokens.used_error()
        if obstacle is not None:
            await tokens.note_failure(op.session, row)
            return obstacle
        enrolment = await self._begin(op, row, request, csr_hash, address)
        if enrolment.state is EnrolmentState.PENDING:
            return _pending(enrolment)
        return await self._reply(op, enrolment)

    async def approve(self, op: FleetOp, node_id: str) -> Node:
        """Let a waiting machine become a node.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: Nothing waits for approval.
        """
        op.actor.require("nodes", "write")
        enrolment, node = await _get_pending(op.session, node_id)
        await self._approve(op, enrolment, node)
        return node

    async def reject(self, op: FleetOp, node_id: str) -> Node:
        """Send a waiting machine away for good. A machine that was a node before stays what it was.

        Raises:
            ForbiddenError, NotFoundError
            ConflictError: Nothing waits for approval.
        """
        op.actor.require("nodes", "write")
        enrolment, node = await _get_pending(op.session, node_id)
        enrolment.state, enrolment.decided_at = EnrolmentState.REJECTED, op.now
        if node.state is NodeState.PENDING:
            node.state, node.revoked_at = NodeState.REVOKED, op.now
        await op.session.flush()
        self._record(op, _note(node, "node.reject", {"fingerprint_words": enrolment.fingerprint_words}))
        return node

    async def _answer_again(self, op: FleetOp, known: Enrolment) -> EnrolmentReply | FleetError:
        node = await op.session.get(Node, known.node_id)
        is_gone = node is None or node.state is NodeState.REVOKED
        if known.state is EnrolmentState.REJECTED or is_gone:
            return ForbiddenError("an administrator rejected this machine", code="enrolment_rejected")
        if known.state is EnrolmentState.PENDING:
            return _pending(known)
        is_lost_answer = known.decided_at is not None and op.now - known.decided_at <= REPLAY_TIME
        never_came = node is not None and node.session_epoch == 0
        return await self._reply(op, known) if is_lost_answer or never_came else tokens.used_error()

    async def _begin(
        self, op: FleetOp, token: EnrolmentTokenRow, request: EnrolmentRequest, csr_hash: str, address: str
    ) -> Enrolment:
        node = await _find_machine(op.session, request.machine_id_hash)
        is_known_machine = node is not None
        if node is None:
            node = await _add_node(op, token, request)
        enrolment = Enrolment(
            csr_hash=csr_hash,
            csr_pem=request.csr_pem,
            token_id=token.token_id,
            node_id=node.id,
            state=EnrolmentState.PENDING,
            fingerprint_words=render_words(csr_hash),
            request=_keep(request, token),
            address=address[:64],
            created_at=op.now,
            updated_at=op.now,
        )
        op.session.add(enrolment)
        await op.session.flush()
        # A known machine with another key is either reinstalled or an impostor; only a person can tell.
        # With its request named beforehand, somebody has told already.
        is_told = token.approval is ApprovalMode.PRESTAGED
        if is_told or (token.approval is ApprovalMode.AUTO and not is_known_machine):
            await self._approve(op, enrolment, node)
        else:
            self._record(op, _note(node, "node.request", {"fingerprint_words": enrolment.fingerprint_words}))
        return enrolment

    async def _approve(self, op: FleetOp, enrolment: Enrolment, node: Node) -> None:
        kept = enrolment.request
        if kept.get("kind") == "renewal":
            await self._approve_renewal(op, enrolment, node)
            return
        if node.state is not NodeState.PENDING:
            node.node_gen += 1
            await release_node_jobs(op.session, node.id, note="the node was enrolled anew", now=op.now)
        node.state, node.revoked_at = NodeState.ACTIVE, None
        node.sealing_public_key = bytes.fromhex(kept["sealing_public_key"])
        node.facts = kept["facts"]
        node.agent_version, node.capability = kept["agent_version"], kept["capability"]
        node.roles = node.roles or kept["roles"]
        await revoke_certificates(op.session, node.id, now=op.now)
        issued = await self._signer.issue_node_certificate(enrolment.csr_pem, node_id=node.id)
        op.session.add(certificate_row(node.id, issued))
        enrolment.state, enrolment.decided_at = EnrolmentState.APPROVED, op.now
        await ensure_role_modules(op.session, node)
        await op.ask(
            await next_node_request(
                op.session, node, actor=op.actor.reference, request_id=op.request_id, reason="first manifest"
            )
        )
        self._record(op, _note(node, "node.approve", {"roles": list(node.roles), "node_gen": node.node_gen}))

    async def _approve_renewal(self, op: FleetOp, enrolment: Enrolment, node: Node) -> None:
        """The same machine with the same identity, away for long: it gets a certificate, and nothing else changes."""
        if node.state is not NodeState.ACTIVE:
            raise ConflictError(f"the node {node.name} is {node.state.value}")
        issued = await self._signer.issue_node_certificate(enrolment.csr_pem, node_id=node.id)
        op.session.add(certificate_row(node.id, issued))
        enrolment.state, enrolment.decided_at = EnrolmentState.APPROVED, op.now
        await op.session.flush()
        self._record(op, _note(node, "node.approve", {"node_gen": node.node_gen, "is_renewal": True}))

    async def _reply(self, op: FleetOp, enrolment: Enrolment) -> EnrolmentReply:
        node = await op.session.get_one(Node, enrolment.node_id)
        certificate = await find_certificate(op.session, node.id)
        bundle = await ensure_trust_bundle(op.session, signer=self._signer, now=op.now)
        return EnrolmentReply(
            state=EnrolmentState.APPROVED,
            fingerprint_words=enrolment.fingerprint_words,
            node_id=node.id,
            node_name=node.name,
            node_gen=node.node_gen,
            cluster_id=self._signer.cluster_id,
            certificate_pem=certificate.pem,
            ca_pem=render_pem(await list_trusted_authorities(op.session)),
            root_key_id=self._signer.root_kid,
            root_public_key=self._signer.root_public_key,
            trust_bundle=bundle.envelope,
            gateway_url=self._gateway_url,
        )


async def find_certificate(session: AsyncSession, node_id: str) -> NodeCertificate:
    """The node's newest certificate that is worth something."""
    statement = (
        select(NodeCertificate)
        .where(NodeCertificate.node_id == node_id, NodeCertificate.revoked_at.is_(None))
        .order_by(NodeCertificate.id.desc())
        .limit(1)
    )
    return (await session.execute(statement)).scalar_one()


async def revoke_certificates(session: AsyncSession, node_id: str, *, now: datetime) -> None:
    """No certificate of the node is admitted any more."""
    revoke = update(NodeCertificate).where(NodeCertificate.node_id == node_id, NodeCertificate.revoked_at.is_(None))
    await session.execute(revoke.values(revoked_at=now).execution_options(synchronize_session=False))


async def find_pending(session: AsyncSession, node_id: str) -> Enrolment | None:
    """The newest request of a machine that waits for approval."""
    statement = (
        select(Enrolment)
        .where(Enrolment.node_id == node_id, Enrolment.state == EnrolmentState.PENDING)
        .order_by(Enrolment.id.desc())
        .limit(1)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def _get_pending(session: AsyncSession, node_id: str) -> tuple[Enrolment, Node]:
    node = await session.get(Node, node_id)
    if node is None:
        raise NotFoundError(f"there is no node {node_id[:80]!r}")
    enrolment = await find_pending(session, node_id)
    if enrolment is None:
        raise ConflictError(f"nothing of {node.name} waits for approval")
    return enrolment, node


async def _find_enrolment(session: AsyncSession, csr_hash: str) -> Enrolment | None:
    return (await session.execute(select(Enrolment).where(Enrolment.csr_hash == csr_hash))).scalar_one_or_none()


async def _find_machine(session: AsyncSession, machine_id_hash: str) -> Node | None:
    """A node that this machine is or was. One that never got a certificate does not count."""
    statement = (
        select(Node)
        .where(
            Node.machine_id_hash == machine_id_hash,
            select(NodeCertificate.id).where(NodeCertificate.node_id == Node.id).exists(),
        )
        .order_by(Node.id.desc())
        .limit(1)
    )
    return (await session.execute(statement)).scalar_one_or_none()


async def _add_node(op: FleetOp, token: EnrolmentTokenRow, request: EnrolmentRequest) -> Node:
    node = Node(
        name=await find_free_name(op.session, token.name or name_from_hostname(request.hostname)),
        state=NodeState.PENDING,
        roles=list(token.roles),
        labels={},
        machine_id_hash=request.machine_id_hash,
        sealing_public_key=request.sealing_public_key,
        facts=dict(request.facts),
        agent_version=request.agent_version,
        capability=request.capability,
        created_at=op.now,
        updated_at=op.now,
    )
    op.session.add(node)
    await op.session.flush()
    return node


def _keep(request: EnrolmentRequest, token: EnrolmentTokenRow) -> dict[str, Any]:
    """What takes effect only with the approval; the token itself is not kept."""
    return {
        "hostname": request.hostname,
        "machine_id_hash": request.machine_id_hash,
        "sealing_public_key": request.sealing_public_key.hex(),
        "capability": request.capability,
        "agent_version": request.agent_version,
        "facts": dict(request.facts),
        "roles": list(token.roles),
    }


def certificate_row(node_id: str, issued: IssuedCertificate) -> NodeCertificate:
    """The row of a certificate that was just issued."""
    return NodeCertificate(
        node_id=node_id,
        issuer=issued.issuer,
        serial=issued.serial,
        fingerprint=issued.fingerprint,
        pem=issued.pem,
        not_after=issued.not_after,
    )


def _pending(enrolment: Enrolment) -> EnrolmentReply:
    return EnrolmentReply(state=EnrolmentState.PENDING, fingerprint_words=enrolment.fingerprint_words)


def _note(node: Node, action: str, after: dict[str, Any]) -> ChangeNote:
    state = msgspec.to_builtins({"name": node.name, "state": node.state.value, **after})
    return ChangeNote(action=action, target=f"node/{node.id}", target_name=node.name, after=state)

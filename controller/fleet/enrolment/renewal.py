"""The next certificate of a node that still has the key of its last one.

Refusals that somebody should hear of are values here, not exceptions: they are audited in the transaction that refuses.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.enrolment.enrolment import certificate_row, find_certificate
from controller.fleet.enrolment.requests import MAX_CSR_LENGTH
from controller.fleet.enrolment.words import render_words
from controller.fleet.identity.authority import csr_digest, fingerprint_of, parse_csr
from controller.fleet.identity.trust import list_trusted_authorities, render_pem
from controller.fleet.models import Enrolment, Node, NodeCertificate, NodeState
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from controller.fleet.signing.signer import Signer
from shared.errors import FleetError, ForbiddenError, InvalidInputError, UnauthenticatedError
from shared.protocol.enrolment import EnrolmentState
from shared.protocol.renewal import MACHINE_CAPABILITY, RenewalReply, RenewalRequest, renewal_message

GRACE: Final = timedelta(days=30)
"""How long after its end a certificate still proves who a node is; later an administrator has to say yes."""
MAX_AGE: Final = timedelta(minutes=15)
"""A signature older or newer than this is refused: also what a clock may be off by."""
VALID_AT_ONCE: Final = 3
"""More renewals than this without a use make the oldest certificates worthless."""
RENEWAL_TOKEN: Final = "renewal"  # noqa: S105 - stands in a request's row where an enrolment has its token's id
_HINT: Final = "Enrol the machine anew: wcp360 enrolment-tokens create."


@dataclass(frozen=True, slots=True)
class _Claim:
    """Who asks, as far as the certificate and the signature prove it."""

    certificate: NodeCertificate
    node: Node


async def renew_certificate(
    op: FleetOp, request: RenewalRequest, *, signer: Signer, record: Recorder, address: str = ""
) -> RenewalReply | FleetError:
    """Issue the next certificate to whoever has the key of a good one.

    Returned errors are to be committed, then raised. Long after its end a certificate proves too little by itself: then
    the request waits for an administrator.

    Raises:
        InvalidInputError: The certificate or the request cannot be read.
        UnauthenticatedError: `bad_signature` or `clock_skew`: they did not prove that they have the key, now.
        ForbiddenError: `certificate_unknown`, `revoked`, `duplicate_identity` or `certificate_expired`.
    """
    if len(request.csr_pem) > MAX_CSR_LENGTH or len(request.certificate_pem) > MAX_CSR_LENGTH:
        raise InvalidInputError("the request is too long", field="csr_pem", code="csr_invalid")
    csr_hash = csr_digest(parse_csr(request.csr_pem))
    certificate = _parse_certificate(request.certificate_pem)
    _require_signed(certificate, request, op.now)
    claim = await _require_node(op.session, certificate)
    alarm = await _find_alarm(op.session, claim, request)
    if alarm is not None:
        _note(op, record, claim.node, "node.clone_suspected", {"reason": alarm.code, "address": address})
        return alarm
    decided = await _find_decided(op, claim.node, csr_hash)
    if decided is not None:
        return decided
    if op.now > claim.certificate.not_after + GRACE:
        return await _ask_administrator(op, claim, request, csr_hash=csr_hash, address=address, record=record)
    issued = await signer.issue_node_certificate(request.csr_pem, node_id=claim.node.id)
    op.session.add(certificate_row(claim.node.id, issued))
    await op.session.flush()
    await _retire_oldest(op.session, claim.node.id, op.now, keep=claim.certificate.id)
    after = {"serial": issued.serial, "not_after": issued.not_after.isoformat()}
    _note(op, record, claim.node, "node.renew_certificate", after)
    return RenewalReply(certificate_pem=issued.pem, ca_pem=await _read_ca_pem(op))


def _parse_certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise InvalidInputError("the certificate cannot be read", field="certificate_pem") from error


def _require_signed(certificate: x509.Certificate, request: RenewalRequest, now: datetime) -> None:
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise ForbiddenError("this certificate is not known here", code="certificate_unknown", hint=_HINT)
    message = renewal_message(request.csr_pem, request.signed_at, request.machine_id_hash)
    try:
        key.verify(request.signature, message, ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise UnauthenticatedError("the certificate's key did not sign this", code="bad_signature") from error
    if abs(now.timestamp() - request.signed_at) > MAX_AGE.total_seconds():
        raise UnauthenticatedError(
            "the request was not signed just now", code="clock_skew", hint="Compare the clocks of node and controller."
        )


async def _require_node(session: AsyncSession, certificate: x509.Certificate) -> _Claim:
    fingerprint = fingerprint_of(certificate.public_bytes(serialization.Encoding.DER))
    statement = select(NodeCertificate, Node).join(Node, Node.id == NodeCertificate.node_id)
    found = (await session.execute(statement.where(NodeCertificate.fingerprint == fingerprint))).first()
    if found is None:
        raise ForbiddenError("this certificate is not known here", code="certificate_unknown", hint=_HINT)
    claim = _Claim(*found)
    if claim.node.state is NodeState.QUARANTINED:
        raise ForbiddenError("two machines use this identity", code="duplicate_identity")
    if claim.node.state is not NodeState.ACTIVE:
        raise ForbiddenError("this node was revoked", code="revoked")
    return claim


async def _find_alarm(session: AsyncSession, claim: _Claim, request: RenewalRequest) -> FleetError | None:
    """Whoever asks has the node's key and is not the node: a copy of it."""
    said = request.machine_id_hash
    if said != claim.node.machine_id_hash and (said or claim.node.capability >= MACHINE_CAPABILITY):
        return ForbiddenError("this identity belongs to another machine", code="wrong_machine", hint=_HINT)
    if claim.certificate.revoked_at is None:
        return None
    newer = select(NodeCertificate.id).where(
        NodeCertificate.node_id == claim.node.id,
        NodeCertificate.id > claim.certificate.id,
        NodeCertificate.used_at.is_not(None),
    )
    if (await session.execute(newer.limit(1))).first() is None:
        return ForbiddenError("this certificate was revoked", code="revoked")
    message = "a newer certificate of this node is in use: this is a copy of an earlier state of it"
    return ForbiddenError(message, code="certificate_superseded", hint=_HINT)


async def _find_decided(op: FleetOp, node: Node, csr_hash: str) -> RenewalReply | FleetError | None:
    """What an administrator said about exactly this request; None when nobody was asked."""
    statement = select(Enrolment).where(Enrolment.csr_hash == csr_hash, Enrolment.node_id == node.id)
    known = (await op.session.execute(statement)).scalar_one_or_none()
    if known is None or known.token_id != RENEWAL_TOKEN:
        return None
    if known.state is EnrolmentState.REJECTED:
        return ForbiddenError("an administrator rejected this machine", code="enrolment_rejected")
    if known.state is EnrolmentState.PENDING:
        return RenewalReply(state=EnrolmentState.PENDING, fingerprint_words=known.fingerprint_words)
    return RenewalReply(
        certificate_pem=(await find_certificate(op.session, node.id)).pem, ca_pem=await _read_ca_pem(op)
    )


async def _ask_administrator(
    op: FleetOp, claim: _Claim, request: RenewalRequest, *, csr_hash: str, address: str, record: Recorder
) -> RenewalReply:
    if not request.machine_id_hash:
        raise ForbiddenError("this certificate ended too long ago", code="certificate_expired", hint=_HINT)
    words = render_words(csr_hash)
    op.session.add(
        Enrolment(
            csr_hash=csr_hash,
            csr_pem=request.csr_pem,
            token_id=RENEWAL_TOKEN,
            node_id=claim.node.id,
            state=EnrolmentState.PENDING,
            fingerprint_words=words,
            request={"kind": RENEWAL_TOKEN},
            address=address[:64],
            created_at=op.now,
            updated_at=op.now,
        )
    )
    await op.session.flush()
    ended = claim.certificate.not_after.isoformat()
    _note(op, record, claim.node, "node.request", {"fingerprint_words": words, "certificate_ended": ended})
    return RenewalReply(state=EnrolmentState.PENDING, fingerprint_words=words)


async def _retire_oldest(session: AsyncSession, node_id: str, now: datetime, *, keep: str) -> None:
    # Not the one that asked: it is what the node has, if the answers never arrive.
    valid = select(NodeCertificate.id).where(NodeCertificate.node_id == node_id, NodeCertificate.revoked_at.is_(None))
    ids = list((await session.execute(valid.order_by(NodeCertificate.id.desc()))).scalars())
    surplus_ids = [row_id for row_id in ids[VALID_AT_ONCE:] if row_id != keep]
    surplus = update(NodeCertificate).where(NodeCertificate.id.in_(surplus_ids)).values(revoked_at=now)
    await session.execute(surplus.execution_options(synchronize_session=False))


async def _read_ca_pem(op: FleetOp) -> str:
    return render_pem(await list_trusted_authorities(op.session))


def _note(op: FleetOp, record: Recorder, node: Node, action: str, after: dict[str, str]) -> None:
    record(op, ChangeNote(action=action, target=f"node/{node.id}", target_name=node.name, after=after))

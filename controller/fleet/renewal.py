"""The next certificate of a node that still has the key of its last one."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.authority import Authority, fingerprint_of, parse_csr
from controller.fleet.models import Node, NodeCertificate, NodeState
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from controller.fleet.requests import MAX_CSR_LENGTH
from shared.errors import ForbiddenError, InvalidInputError, UnauthenticatedError
from shared.protocol.renewal import RenewalReply, RenewalRequest, renewal_message

GRACE: Final = timedelta(days=30)
"""How long after its end a certificate still proves who a node is; later an administrator has to enrol it anew."""
MAX_AGE: Final = timedelta(minutes=15)
"""A signature older or newer than this is refused: also what a clock may be off by."""
VALID_AT_ONCE: Final = 3
"""More renewals than this make the oldest certificates worthless."""
_HINT: Final = "Enrol the machine anew: wcp360 enrolment-tokens create."


async def renew_certificate(
    op: FleetOp, request: RenewalRequest, *, authority: Authority, cluster_id: str, record: Recorder
) -> RenewalReply:
    """Issue the next certificate to whoever has the key of a good one.

    Raises:
        InvalidInputError: The certificate or the request cannot be read.
        UnauthenticatedError: `bad_signature` or `clock_skew`: they did not prove that they have the key, now.
        ForbiddenError: `certificate_unknown`, `revoked` or `certificate_expired`.
    """
    if len(request.csr_pem) > MAX_CSR_LENGTH or len(request.certificate_pem) > MAX_CSR_LENGTH:
        raise InvalidInputError("the request is too long", field="csr_pem", code="csr_invalid")
    csr = parse_csr(request.csr_pem)
    certificate = _parse_certificate(request.certificate_pem)
    _require_signed(certificate, request, op.now)
    present, node = await _require_node(op.session, certificate, op.now)
    issued = authority.issue_node_certificate(csr, cluster_id=cluster_id, node_id=node.id, now=op.now)
    row = NodeCertificate(
        node_id=node.id,
        serial=issued.serial,
        fingerprint=issued.fingerprint,
        pem=issued.pem,
        not_after=issued.not_after,
    )
    op.session.add(row)
    await op.session.flush()
    await _retire_oldest(op.session, node.id, op.now, keep=present.id)
    after = {"serial": issued.serial, "not_after": issued.not_after.isoformat()}
    record(
        op, ChangeNote(action="node.renew_certificate", target=f"node/{node.id}", target_name=node.name, after=after)
    )
    return RenewalReply(certificate_pem=issued.pem, ca_pem=authority.ca_pem)


def _parse_certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except ValueError as error:
        raise InvalidInputError("the certificate cannot be read", field="certificate_pem") from error


def _require_signed(certificate: x509.Certificate, request: RenewalRequest, now: datetime) -> None:
    key = certificate.public_key()
    if not isinstance(key, EllipticCurvePublicKey):
        raise ForbiddenError("this certificate is not known here", code="certificate_unknown", hint=_HINT)
    try:
        key.verify(request.signature, renewal_message(request.csr_pem, request.signed_at), ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise UnauthenticatedError("the certificate's key did not sign this", code="bad_signature") from error
    if abs(now.timestamp() - request.signed_at) > MAX_AGE.total_seconds():
        raise UnauthenticatedError(
            "the request was not signed just now", code="clock_skew", hint="Compare the clocks of node and controller."
        )


async def _require_node(
    session: AsyncSession, certificate: x509.Certificate, now: datetime
) -> tuple[NodeCertificate, Node]:
    fingerprint = fingerprint_of(certificate.public_bytes(serialization.Encoding.DER))
    statement = select(NodeCertificate, Node).join(Node, Node.id == NodeCertificate.node_id)
    found = (await session.execute(statement.where(NodeCertificate.fingerprint == fingerprint))).first()
    if found is None:
        raise ForbiddenError("this certificate is not known here", code="certificate_unknown", hint=_HINT)
    row, node = found
    if row.revoked_at is not None or node.state is not NodeState.ACTIVE:
        raise ForbiddenError("this node was revoked", code="revoked")
    if now > row.not_after + GRACE:
        raise ForbiddenError("this certificate ended too long ago", code="certificate_expired", hint=_HINT)
    return row, node


async def _retire_oldest(session: AsyncSession, node_id: str, now: datetime, *, keep: str) -> None:
    # Not the one that asked: it is what the node has, if the answers never arrive.
    valid = select(NodeCertificate.id).where(NodeCertificate.node_id == node_id, NodeCertificate.revoked_at.is_(None))
    ids = list((await session.execute(valid.order_by(NodeCertificate.id.desc()))).scalars())
    surplus_ids = [row_id for row_id in ids[VALID_AT_ONCE:] if row_id != keep]
    surplus = update(NodeCertificate).where(NodeCertificate.id.in_(surplus_ids)).values(revoked_at=now)
    await session.execute(surplus.execution_options(synchronize_session=False))

"""The trust bundle in force: made anew whenever its content or its remaining time asks for it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.db.prepared import Prepared
from controller.fleet.models import TrustBundleRow
from controller.fleet.signing.signer import Signer
from shared.errors import UnavailableError
from shared.protocol.envelope import Envelope
from shared.protocol.trust import TrustBundle, decode_trust_bundle, encode_trust_bundle

BUNDLE_LIFETIME: Final = timedelta(days=180)
"""How long a node without a controller goes on believing it; jobs need a controller anyway."""
BUNDLE_RENEWAL: Final = timedelta(days=90)

NEWEST_TRUST: Final = Prepared(select(TrustBundleRow.version).order_by(TrustBundleRow.version.desc()).limit(1))
"""The version in force, without the bundle."""


async def ensure_trust_bundle(session: AsyncSession, *, signer: Signer, now: datetime) -> TrustBundleRow:
    """The newest bundle, after adding a newer one if certificates or job keys changed or the time runs out.

    Raises:
        UnavailableError: The signer does not answer.
    """
    newest = await find_trust_bundle(session)
    authorities = await signer.list_authorities()
    bundle = TrustBundle(
        cluster_id=signer.cluster_id,
        version=(newest.version if newest else 0) + 1,
        issued_at=now.timestamp(),
        expires_at=(now + BUNDLE_LIFETIME).timestamp(),
        ca_certificates=tuple(info.der for info in authorities.trusted),
        job_keys=await signer.current_job_keys(),
        revoked_kids=await signer.revoked_job_keys(),
    )
    content = encode_trust_bundle(msgspec.structs.replace(bundle, version=0, issued_at=0.0, expires_at=0.0))
    content_hash = hashlib.sha256(content).hexdigest()
    if newest is not None and newest.content_hash == content_hash and _is_timely(newest, now):
        return newest
    envelope = await signer.sign_trust(encode_trust_bundle(bundle))
    row = TrustBundleRow(
        version=bundle.version,
        content_hash=content_hash,
        envelope=msgspec.msgpack.encode(envelope),
        expires_at=now + BUNDLE_LIFETIME,
    )
    session.add(row)
    await session.flush()
    return row


def _is_timely(row: TrustBundleRow, now: datetime) -> bool:
    """It lasts long enough, and was not made while this controller's clock was ahead: nodes go by its time."""
    return row.expires_at - now > BUNDLE_RENEWAL and row.expires_at - now <= BUNDLE_LIFETIME


async def find_trust_bundle(session: AsyncSession) -> TrustBundleRow | None:
    """The newest bundle."""
    newest = select(TrustBundleRow).order_by(TrustBundleRow.version.desc()).limit(1)
    return (await session.execute(newest)).scalar_one_or_none()


async def list_trusted_authorities(session: AsyncSession) -> tuple[x509.Certificate, ...]:
    """The authorities of the newest bundle: what every process of the controller agrees on, without asking the signer.

    Raises:
        UnavailableError: There is no bundle yet.
    """
    row = await find_trust_bundle(session)
    if row is None:
        raise UnavailableError("there is no trust bundle yet", hint="The controller makes it when it starts.")
    bundle = decode_trust_bundle(decode_envelope(row.envelope).payload)
    return tuple(x509.load_der_x509_certificate(der) for der in bundle.ca_certificates)


def render_pem(certificates: Iterable[x509.Certificate]) -> str:
    """Certificates one after the other."""
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in certificates)


def decode_envelope(raw: bytes) -> Envelope:
    """An envelope as the database keeps it."""
    return msgspec.msgpack.decode(raw, type=Envelope)

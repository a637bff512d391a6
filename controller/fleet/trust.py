"""The trust bundle in force: made anew whenever its content or its remaining time asks for it."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Final

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.authority import Authority
from controller.fleet.models import TrustBundleRow
from controller.fleet.signer import Signer
from shared.protocol.envelope import Envelope
from shared.protocol.trust import TrustBundle, encode_trust_bundle

BUNDLE_LIFETIME: Final = timedelta(days=180)
"""How long a node without a controller goes on believing it; jobs need a controller anyway."""
BUNDLE_RENEWAL: Final = timedelta(days=90)


async def ensure_trust_bundle(
    session: AsyncSession, *, authority: Authority, signer: Signer, now: datetime
) -> TrustBundleRow:
    """The newest bundle, after adding a newer one if certificates or job keys changed or the time runs out.

    Raises:
        UnavailableError: The signer does not answer.
    """
    newest = await find_trust_bundle(session)
    bundle = TrustBundle(
        cluster_id=signer.cluster_id,
        version=(newest.version if newest else 0) + 1,
        issued_at=now.timestamp(),
        expires_at=(now + BUNDLE_LIFETIME).timestamp(),
        ca_certificates=(authority.ca_der,),
        job_keys=await signer.current_job_keys(),
    )
    content = encode_trust_bundle(msgspec.structs.replace(bundle, version=0, issued_at=0.0, expires_at=0.0))
    content_hash = hashlib.sha256(content).hexdigest()
    if newest is not None and newest.content_hash == content_hash and newest.expires_at - now > BUNDLE_RENEWAL:
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


async def find_trust_bundle(session: AsyncSession) -> TrustBundleRow | None:
    """The newest bundle."""
    newest = select(TrustBundleRow).order_by(TrustBundleRow.version.desc()).limit(1)
    return (await session.execute(newest)).scalar_one_or_none()


def decode_envelope(raw: bytes) -> Envelope:
    """An envelope as the database keeps it."""
    return msgspec.msgpack.decode(raw, type=Envelope)

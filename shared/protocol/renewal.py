"""How a node gets its next certificate: JSON over HTTPS, signed with the key of the present one.

Over HTTPS and not over the session, because a node whose certificate has ended has no session any more. The session
only says that it is time (RenewCertificate).
"""

from __future__ import annotations

from typing import Final

import msgspec

from shared.protocol.enrolment import EnrolmentState
from shared.protocol.frame import Frame

RENEWAL_PATH: Final = "/api/v1/enrol/renew"
TRUST_BUNDLE_PATH: Final = "/trust-bundle"
"""The newest bundle for everybody: signed by the root key, so a node believes it over any connection."""
RENEW_AFTER_SHARE: Final = 0.5
"""A node asks once this share of its certificate's life is over, and then hourly until it has the next one."""
MACHINE_CAPABILITY: Final = 2
"""From this capability on a node says which machine it is when it renews."""


class RenewCertificate(Frame, frozen=True, kw_only=True, tag="cert_renew"):
    """Controller: get another certificate now, then come back with it. The authority is being replaced."""

    within_seconds: float
    """Begin at a random moment within this time: a whole fleet is asked at once."""


class TrustReport(Frame, frozen=True, kw_only=True, tag="trust_report"):
    """Node: this is the bundle that its executor believes now. Said whenever it has changed."""

    bundle_version: int


class RenewalRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """POST RENEWAL_PATH. Asking again is harmless: only the request's own key can use the answer."""

    certificate_pem: str
    """The present certificate, or the last one. Long after its end an administrator decides."""
    csr_pem: str
    """PKCS#10, P-256, of the next key (or of the same one). Only its public key is used."""
    signed_at: int
    """The node's time, seconds since the epoch."""
    signature: bytes
    """ECDSA with SHA-256 (DER) over `renewal_message`, by the key of `certificate_pem`."""
    machine_id_hash: str = ""
    """SHA-256 in hex of /etc/machine-id; empty before MACHINE_CAPABILITY."""


class RenewalReply(msgspec.Struct, frozen=True, kw_only=True):
    """The next certificate. The present one stays valid until the next is used, so a lost answer costs nothing."""

    certificate_pem: str = ""
    """Empty while an administrator decides."""
    ca_pem: str = ""
    state: EnrolmentState = EnrolmentState.APPROVED
    """PENDING: the certificate ended too long ago; ask again with the same request until somebody has decided."""
    fingerprint_words: str = ""
    """Six words of the CSR, while pending: the administrator compares them before approving."""
    retry_after_seconds: float = 60.0


def renewal_message(csr_pem: str, signed_at: int, machine_id_hash: str = "") -> bytes:
    """What is signed: purpose, time, machine and request, so that the signature is good for nothing else."""
    if not machine_id_hash:
        return b"wcp360-renewal-v1\n%d\n" % signed_at + csr_pem.encode()
    return b"wcp360-renewal-v2\n%d\n%s\n" % (signed_at, machine_id_hash.encode()) + csr_pem.encode()

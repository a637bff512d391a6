"""How a node gets its next certificate: JSON over HTTPS, signed with the key of the present one.

Over HTTPS and not over the session, because a node whose certificate has ended has no session any more.
"""

from __future__ import annotations

from typing import Final

import msgspec

RENEWAL_PATH: Final = "/api/v1/enrol/renew"
RENEW_AFTER_SHARE: Final = 0.5
"""A node asks once this share of its certificate's life is over, and then hourly until it has the next one."""


class RenewalRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """POST RENEWAL_PATH. Asking again is harmless: only the request's own key can use the answer."""

    certificate_pem: str
    """The present certificate, or the last one, at most 30 days after its end."""
    csr_pem: str
    """PKCS#10, P-256, of the next key (or of the same one). Only its public key is used."""
    signed_at: int
    """The node's time, seconds since the epoch."""
    signature: bytes
    """ECDSA with SHA-256 (DER) over `renewal_message`, by the key of `certificate_pem`."""


class RenewalReply(msgspec.Struct, frozen=True, kw_only=True):
    """The next certificate. The present one stays valid to its end, so a lost answer costs nothing."""

    certificate_pem: str
    ca_pem: str


def renewal_message(csr_pem: str, signed_at: int) -> bytes:
    """What is signed: purpose, time and request, so that the signature is good for nothing else."""
    return b"wcp360-renewal-v1\n%d\n" % signed_at + csr_pem.encode()

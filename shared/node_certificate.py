"""Whose certificate it is and who issued it, with nothing but Python itself.

It reads the part of X.509 that our own authority writes: P-256, SHA-256, the node's name as a URI. All else is refused.

Whether it has ended is not asked: what a node signed while it was good stays signed.
Source: RFC 5280 section 4.1, RFC 5480 section 2.1.1, RFC 5758 section 3.2.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from shared import der, p256

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----")
_EXPLICIT_VERSION: Final = 0xA0
_EXTENSIONS: Final = 0xA3
_URI: Final = 0x86
_ECDSA_SHA256: Final = bytes.fromhex("2a8648ce3d040302")
_EC_KEY_ON_P256: Final = (bytes.fromhex("2a8648ce3d0201"), bytes.fromhex("2a8648ce3d030107"))
_SUBJECT_ALT_NAME: Final = bytes.fromhex("551d11")
_NODE_URI: Final = re.compile(r"spiffe://([^/]+)/node/([^/]+)")


class CertificateError(ValueError):
    """It is none of our certificates."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What of a certificate is looked at."""

    fingerprint: str
    """SHA-256 in hex of the whole."""
    public_point: bytes
    uris: tuple[str, ...]
    signed: bytes
    signature: bytes

    def is_issued_by(self, authority: Certificate) -> bool:
        """Whether the authority's key signed it."""
        return p256.is_signed_by(authority.public_point, self.signed, self.signature)

    def find_node(self, cluster_id: str) -> str:
        """The id of the node whose it is; empty: of none of this controller."""
        for uri in self.uris:
            found = _NODE_URI.fullmatch(uri)
            if found is not None and found.group(1) == cluster_id:
                return found.group(2)
        return ""


def parse_certificates(pem: str) -> list[Certificate]:
    """All certificates of a PEM text.

    Raises:
        CertificateError: One of them is none of ours, or there is none.
    """
    found = []
    for text in _PEM.findall(pem):
        try:
            found.append(_parse(base64.b64decode("".join(text.split()), validate=True)))
        except (binascii.Error, der.DerError, IndexError, UnicodeDecodeError) as error:
            raise CertificateError(f"a certificate cannot be read: {error}") from error
    if not found:
        raise CertificateError("there is no certificate")
    return found


def _parse(raw: bytes) -> Certificate:
    body, algorithm, signature = der.read_children(der.read_whole(raw, der.SEQUENCE))[:3]
    if der.read_children(algorithm)[0].content != _ECDSA_SHA256:
        raise der.DerError("signed with another algorithm than ours")
    fields = der.read_children(body)
    if fields[0].tag == _EXPLICIT_VERSION:
        fields = fields[1:]
    # serialNumber, signature, issuer, validity, subject, subjectPublicKeyInfo, and what is optional
    key_algorithm, point = der.read_children(fields[5])
    if tuple(item.content for item in der.read_children(key_algorithm)) != _EC_KEY_ON_P256:
        raise der.DerError("another kind of key than ours")
    return Certificate(
        fingerprint=hashlib.sha256(raw).hexdigest(),
        public_point=der.read_bits(point),
        uris=_read_uris(fields[6:]),
        signed=body.whole,
        signature=der.read_bits(signature),
    )


def _read_uris(optional: list[der.Element]) -> tuple[str, ...]:
    uris: list[str] = []
    for wrapped in (item for item in optional if item.tag == _EXTENSIONS):
        for extension in der.read_children(der.read_whole(wrapped.content, der.SEQUENCE)):
            parts = der.read_children(extension)
            if parts[0].content == _SUBJECT_ALT_NAME:
                names = der.read_children(der.read_whole(parts[-1].content, der.SEQUENCE))
                uris += [name.content.decode("ascii") for name in names if name.tag == _URI]
    return tuple(uris)

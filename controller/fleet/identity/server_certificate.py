"""The certificate of this process's own TLS listener: the key stays here, the signer issues what belongs to it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509.oid import NameOID

from controller.fleet.identity.authorities import Authorities
from controller.fleet.identity.authority import SERVER_RENEWAL, ServerCertificate, general_name, public_key_der
from controller.fleet.signing.keyfiles import ensure_p256_key, ensure_pki_dir, write_durably


class ServerIssuer(Protocol):
    """The part of a signer that this file needs. Both calls block for a moment."""

    def read_authorities(self) -> Authorities: ...

    def issue_server_certificate(self, csr_pem: str, names: tuple[str, ...]) -> str:
        """Certificate and its authority, as PEM."""
        ...


def controller_identity(cluster_id: str) -> str:
    """The name that every certificate of a controller process has beside its host names, and no node's ever has."""
    return f"spiffe://{cluster_id}/controller"


def ensure_server_certificate(
    issuer: ServerIssuer, folder: Path, names: Sequence[str], *, now: datetime
) -> ServerCertificate:
    """A certificate for these host names and addresses; made anew when they, or the authority, changed or it ends soon.

    The key is never changed by it: pins that somebody pasted stay true.

    Raises:
        UnavailableError: The signer does not answer, or the key cannot be read.
    """
    ensure_pki_dir(folder)
    key_path, path = folder / "server.key", folder / "server.pem"
    key = ensure_p256_key(key_path)
    authority = issuer.read_authorities().get(issuer.read_authorities().server_issuer)
    if not path.exists() or not _is_good(path.read_bytes(), key, names, authority.certificate, now):
        chain = issuer.issue_server_certificate(_make_csr(key, names[0]), tuple(names))
        write_durably(path, chain.encode(), mode=0o644)
    digest = hashlib.sha256(public_key_der(key.public_key())).digest()
    return ServerCertificate(path, key_path, base64.b64encode(digest).decode())


def _is_good(
    chain: bytes, key: EllipticCurvePrivateKey, names: Sequence[str], authority: x509.Certificate, now: datetime
) -> bool:
    certificate = x509.load_pem_x509_certificate(chain)
    wanted = {general_name(name) for name in names}
    held = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    same_key = public_key_der(certificate.public_key()) == public_key_der(key.public_key())
    lasts = certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - SERVER_RENEWAL
    return same_key and lasts and certificate.issuer == authority.subject and set(held) == wanted


def _make_csr(key: EllipticCurvePrivateKey, name: str) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()

"""Keys, the signing request and pins. Needs `cryptography`: imported at enrolment and while renewing."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from agent.link.settings import NodePaths
from agent.link.setup_errors import ExitCode, SetupError

_PRIVATE_MODE: Final = 0o600
_PREPARED: Final = "prepared\n"
"""Stands before a request that was made before there was a token; whichever token comes is used with it."""


class Owner(msgspec.Struct, frozen=True):
    """Numeric owner of a file; None leaves it to whoever runs."""

    uid: int
    gid: int


class NodeKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What the enrolment shows of the node's keys. The private halves stay in their files."""

    csr_pem: str
    sealing_public_key: bytes


def write_private_file(path: Path, content: bytes, *, mode: int = _PRIVATE_MODE, owner: Owner | None = None) -> None:
    """Write whole or not at all, never through a link that somebody left there.

    Changes: the file, its owner and mode.
    """
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        if owner is not None:
            os.fchown(descriptor, owner.uid, owner.gid)
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)


def ensure_node_keys(paths: NodePaths, *, token_id: str, hostname: str, owner: Owner | None) -> NodeKeys:
    """Make the keys and the request, or take those of an enrolment with this token that was interrupted.

    The same request with the same token is what makes a lost answer and a wait for approval harmless, so the request is
    kept, too (an ECDSA signature is different each time). Another token begins anew.
    """
    note = f"token {token_id}\n"
    if paths.pending_key.exists() and _read_text(paths.pending_csr).startswith(_PREPARED):
        note = _PREPARED
    if not (paths.pending_key.exists() and _read_text(paths.pending_csr).startswith(note)):
        key_pem, csr_pem = make_key_and_request(hostname)
        write_private_file(paths.pending_key, key_pem, owner=owner)
        # Text before the PEM block is a comment. Source: RFC 7468 section 2.
        write_private_file(paths.pending_csr, note.encode() + csr_pem, owner=owner)
    return NodeKeys(
        csr_pem=_read_text(paths.pending_csr).removeprefix(note),
        sealing_public_key=_ensure_sealing_key(paths.sealing_key, owner),
    )


def prepare_request(paths: NodePaths, *, hostname: str, owner: Owner | None) -> str:
    """Make the key and the request before there is a token, or find those of an earlier call; the hash of the request.

    An administrator gives the hash to a prestaged token, and then only this machine can use it.

    Changes: the waiting key and request.
    """
    if not (paths.pending_key.exists() and _read_text(paths.pending_csr).startswith(_PREPARED)):
        paths.tls_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_pem, csr_pem = make_key_and_request(hostname)
        write_private_file(paths.pending_key, key_pem, owner=owner)
        write_private_file(paths.pending_csr, _PREPARED.encode() + csr_pem, owner=owner)
    pem = _read_text(paths.pending_csr).removeprefix(_PREPARED)
    return hashlib.sha256(x509.load_pem_x509_csr(pem.encode()).public_bytes(Encoding.DER)).hexdigest()


def make_key_and_request(name: str) -> tuple[bytes, bytes]:
    """A fresh P-256 key and the request for its certificate, both PEM.

    Only the request's public key is used; the name makes it readable for a person.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64] or "node")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    key_pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return key_pem, request.public_bytes(Encoding.PEM)


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except FileNotFoundError:
        return ""


def _ensure_sealing_key(path: Path, owner: Owner | None) -> bytes:
    if path.exists():
        key = load_pem_private_key(path.read_bytes(), password=None)
        if not isinstance(key, X25519PrivateKey):
            raise SetupError(ExitCode.UNEXPECTED, f"{path} holds no X25519 key", hint="Uninstall and install again.")
    else:
        key = X25519PrivateKey.generate()
        write_private_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), owner=owner)
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def install_certificate(paths: NodePaths, certificate_pem: str, *, owner: Owner | None) -> None:
    """Put the certificate and the key that waited for it in the place of what was there before, both at once.

    Raises:
        SetupError: The certificate is for another key.
    """
    key_pem = paths.pending_key.read_bytes()
    require_certificate_fits(certificate_pem, key_pem)
    write_private_file(paths.node_pem, key_pem + certificate_pem.encode(), owner=owner)
    for leftover in (paths.pending_key, paths.pending_csr, paths.next_pem):
        leftover.unlink(missing_ok=True)


def spki_pin(certificate: x509.Certificate) -> str:
    """SHA-256 in hex of the certificate's public key. Source: RFC 7469 section 2.4 (over the SubjectPublicKeyInfo)."""
    der = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).hexdigest()


def select_pinned_ca(pem: bytes, pins: tuple[str, ...]) -> str:
    """The certificates of a PEM text that a pin names, as PEM; the others are not believed.

    Raises:
        SetupError: None is: somebody else answers for the controller, or the token is of another one.
    """
    try:
        certificates = x509.load_pem_x509_certificates(pem)
    except ValueError:
        certificates = []
    good = [
        certificate
        for certificate in certificates
        if any(hmac.compare_digest(spki_pin(certificate), pin) for pin in pins)
    ]
    if not good:
        raise SetupError(
            ExitCode.WRONG_PIN,
            "the server's authority is not the one that the token names",
            hint="Somebody may be between here and the controller, or the command is of another controller. "
            "Do not go on before you know which.",
        )
    return "".join(certificate.public_bytes(Encoding.PEM).decode() for certificate in good)


def require_certificate_fits(certificate_pem: str, key_pem: bytes) -> None:
    """Check that the certificate is for our key.

    Raises:
        SetupError: It is not.
    """
    key = load_pem_private_key(key_pem, password=None)
    try:
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    except ValueError as error:
        raise SetupError(ExitCode.BAD_ANSWER, "the controller sent no certificate") from error
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if certificate.public_key().public_bytes(*form) != key.public_key().public_bytes(*form):
        raise SetupError(ExitCode.BAD_ANSWER, "the controller sent a certificate for another key")

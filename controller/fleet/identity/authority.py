"""One certificate authority of the fleet (P-256): certificates for the controller's listeners and for the nodes.

There are two of them while one replaces the other: controller/fleet/identity/authorities.py.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, EllipticCurvePublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from controller.fleet.signing.keyfiles import ensure_p256_key, ensure_pki_dir, write_durably
from shared.errors import InvalidInputError

BACKDATE: Final = timedelta(minutes=5)
"""Clocks differ a little; a certificate that begins "in the future" is refused by everybody."""
CA_LIFETIME: Final = timedelta(days=3650)
SERVER_LIFETIME: Final = timedelta(days=365)
SERVER_RENEWAL: Final = timedelta(days=60)
"""A server certificate with less than this left is replaced, with the same key: pasted pins stay true."""
NODE_LIFETIME: Final = timedelta(days=7)
TRUSTED_FILE: Final = "ca.pem"
"""Every authority that is trusted now, for people and their tools (authorities.py writes it)."""
FIRST_ID: Final = "ca"
"""The authority that a fleet begins with; each later one is named by the rotation that brought it."""


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A node's certificate."""

    pem: str
    serial: str
    """Hex."""
    fingerprint: str
    """SHA-256 of the DER in hex: how the gateway knows the node."""
    not_after: datetime
    issuer: str = FIRST_ID
    """Id of the authority."""


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """Files for a TLS listener; the chain holds the authority too."""

    chain_path: Path
    key_path: Path
    pin: str
    """base64 of the SHA-256 of the public key, as curl's --pinnedpubkey takes it."""


class Authority:
    """Issues certificates. Every time is passed in by the caller."""

    def __init__(
        self, pki_dir: Path, key: EllipticCurvePrivateKey, certificate: x509.Certificate, *, ca_id: str = FIRST_ID
    ) -> None:
        self._dir = pki_dir
        self._key = key
        self._certificate = certificate
        self.ca_id = ca_id

    @classmethod
    def open_or_create(cls, pki_dir: Path, *, now: datetime, ca_id: str = FIRST_ID) -> Authority:
        """Read the authority from its folder, or make a new one there.

        Raises:
            UnavailableError: Its key cannot be read.
        """
        ensure_pki_dir(pki_dir)
        stem = authority_stem(ca_id)
        key = ensure_p256_key(pki_dir / f"{stem}.key")
        path = pki_dir / f"{stem}.crt"
        if not path.exists():
            # An installation of before kept the certificate in ca.pem, which holds all trusted ones now.
            certificate = _find_certificate(pki_dir / TRUSTED_FILE, key) or _self_signed(key, now)
            write_durably(path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
        return cls(pki_dir, key, x509.load_pem_x509_certificate(path.read_bytes()), ca_id=ca_id)

    @property
    def ca_path(self) -> Path:
        """PEM file with the certificates of all authorities that are trusted beside this one, and its own."""
        return self._dir / TRUSTED_FILE

    @property
    def ca_pem(self) -> str:
        """The authority's certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def ca_der(self) -> bytes:
        """The authority's certificate, as trust bundles hold it."""
        return self._certificate.public_bytes(serialization.Encoding.DER)

    @property
    def ca_pin(self) -> str:
        """SHA-256 in hex of the authority's public key (SPKI): what an enrolment token pins."""
        return hashlib.sha256(public_key_der(self._key.public_key())).hexdigest()

    def issue_server_certificate(
        self, csr: x509.CertificateSigningRequest, names: Sequence[str], *, now: datetime
    ) -> str:
        """A certificate for a listener with these host names and addresses, as PEM with the authority behind it."""
        wanted = [general_name(name) for name in dict.fromkeys(names)]
        builder = _leaf(self._certificate, require_p256(csr), now, SERVER_LIFETIME)
        builder = builder.subject_name(_common_name(names[0][:64]))
        builder = builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        # Both ends of a connection between two processes of the controller show this certificate.
        purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        return pem.decode() + self.ca_pem

    def issue_node_certificate(
        self, csr: x509.CertificateSigningRequest, *, cluster_id: str, node_id: str, now: datetime
    ) -> IssuedCertificate:
        """A client certificate for the request's public key; every name in it is the controller's own."""
        identity = x509.UniformResourceIdentifier(f"spiffe://{cluster_id}/node/{node_id}")
        builder = _leaf(self._certificate, require_p256(csr), now, NODE_LIFETIME)
        builder = builder.subject_name(_common_name(node_id))
        builder = builder.add_extension(x509.SubjectAlternativeName([identity]), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        return IssuedCertificate(
            pem=certificate.public_bytes(serialization.Encoding.PEM).decode(),
            serial=f"{certificate.serial_number:x}",
            fingerprint=fingerprint_of(certificate.public_bytes(serialization.Encoding.DER)),
            not_after=certificate.not_valid_after_utc,
            issuer=self.ca_id,
        )


def _find_certificate(path: Path, key: EllipticCurvePrivateKey) -> x509.Certificate | None:
    """The certificate of this key in a PEM file."""
    if not path.exists():
        return None
    ours = public_key_der(key.public_key())
    found = x509.load_pem_x509_certificates(path.read_bytes())
    return next((certificate for certificate in found if public_key_der(certificate.public_key()) == ours), None)


def authority_stem(ca_id: str) -> str:
    """Name of the authority's two files, without their suffix."""
    return ca_id if ca_id == FIRST_ID else f"{FIRST_ID}-{ca_id}"


def parse_csr(pem: str) -> x509.CertificateSigningRequest:
    """Read a certificate signing request and check that its sender has the private key.

    Raises:
        InvalidInputError: `csr_invalid`: it cannot be read, is not signed by its own key, or the key is not P-256.
    """
    try:
        csr = x509.load_pem_x509_csr(pem.encode())
        is_signed = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInputError(
            "the certificate request cannot be read", field="csr_pem", code="csr_invalid"
        ) from error
    if not is_signed:
        raise InvalidInputError("the certificate request is not signed by its key", field="csr_pem", code="csr_invalid")
    require_p256(csr)
    return csr


def require_p256(csr: x509.CertificateSigningRequest) -> EllipticCurvePublicKey:
    """The request's public key.

    Raises:
        InvalidInputError: `csr_invalid`: it is not on P-256.
    """
    try:
        key = csr.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInputError("the request's key cannot be read", field="csr_pem", code="csr_invalid") from error
    if not isinstance(key, EllipticCurvePublicKey) or not isinstance(key.curve, SECP256R1):
        raise InvalidInputError("the request's key must be on P-256", field="csr_pem", code="csr_invalid")
    return key


def public_key_der(key: object) -> bytes:
    """SubjectPublicKeyInfo of a public key. Source: RFC 5280 section 4.1.2.7."""
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return] # every public key of cryptography has it
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def csr_digest(csr: x509.CertificateSigningRequest) -> str:
    """SHA-256 in hex of the request's DER: "the same CSR"."""
    return hashlib.sha256(csr.public_bytes(serialization.Encoding.DER)).hexdigest()


def fingerprint_of(der: bytes) -> str:
    """SHA-256 in hex of a certificate."""
    return hashlib.sha256(der).hexdigest()


def _self_signed(key: EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    public = key.public_key()
    name = _common_name(f"WCP360 fleet authority {hashlib.sha256(public_key_der(public)).hexdigest()[:8]}")
    usage = _key_usage(signs_certificates=True)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - BACKDATE).not_valid_after(now + CA_LIFETIME)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    return builder.sign(key, hashes.SHA256())


def _leaf(
    authority: x509.Certificate, public: EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    """Everything but names and purpose. Complete enough for VERIFY_X509_STRICT, the default of Python 3.13."""
    issuer_key = authority.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = x509.CertificateBuilder().issuer_name(authority.subject).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - BACKDATE).not_valid_after(now + lifetime)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(signs_certificates=False), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key)
    return builder.add_extension(identifier, critical=False)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _common_name(value: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, value)])


def general_name(name: str) -> x509.GeneralName:
    """A host name, an address or a URI, as a certificate holds it."""
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)

"""A certificate authority for tests: server, node and foreign certificates, and a signer of jobs."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

DAY = dt.timedelta(days=1)
AGE = 10 * DAY
REST = 20 * DAY
"""A third of a certificate's life is over: no link renews it."""


def spki_hash(key: ec.EllipticCurvePublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


class TestAuthority:
    """One CA with everything it issued in a folder."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test CA")])
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        self.ca_file = folder / "ca.pem"
        self.ca_file.write_text(self.ca_pem)

    @property
    def ca_pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    @property
    def pin(self) -> str:
        return spki_hash(self.key.public_key())

    def issue_for(self, public_key: ec.EllipticCurvePublicKey, name: str, *, lifetime: dt.timedelta = REST) -> str:
        now = dt.datetime.now(dt.UTC)
        return (
            (
                x509.CertificateBuilder()
                .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
                .issuer_name(self.certificate.subject)
                .public_key(public_key)
                .serial_number(x509.random_serial_number())
                .not_valid_before(now - AGE)
                .not_valid_after(now + lifetime)
                .add_extension(
                    x509.SubjectAlternativeName(
                        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
                    ),
                    critical=False,
                )
                .sign(self.key, hashes.SHA256())
            )
            .public_bytes(Encoding.PEM)
            .decode()
        )

    def issue(self, name: str, *, lifetime: dt.timedelta = REST) -> tuple[Path, Path]:
        """Certificate and key files."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate_path, key_path = self.folder / f"{name}.crt", self.folder / f"{name}.key"
        certificate_path.write_text(self.issue_for(key.public_key(), name, lifetime=lifetime))
        key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate_path, key_path

    def issue_pem(self, name: str, *, lifetime: dt.timedelta = REST) -> str:
        """Key and certificate as node.pem holds them."""
        certificate, key = self.issue(name, lifetime=lifetime)
        return key.read_text() + certificate.read_text()

    def server_context(self, *, wants_client: bool) -> ssl.SSLContext:
        certificate, key = self.issue("server")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(certificate, key)
        if wants_client:
            context.num_tickets = 0
            context.load_verify_locations(self.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

"""What nodes sign, judged with nothing but Python: the same verdict as the library's, and every forgery is found."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.link.enrolment_keys import make_key_and_request
from controller.fleet.identity.authority import Authority, parse_csr
from shared import p256
from shared.audit_proof import ProofError
from shared.audit_walk import verify_export
from shared.audit_witness import Statement, read_record, render_statement, witness_message
from shared.node_certificate import CertificateError, parse_certificates
from tests.unit.shared.test_audit_proof import PUBLIC, Record, make_entries, make_export

KEY = generate_private_key(SECP256R1())
POINT = KEY.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
NODE = "01a20826-dfb8-738d-8957-93ca7ceacff5"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Pki:
    """An authority, and one node's key and certificate."""

    def __init__(self, folder: Path) -> None:
        self.authority = Authority.open_or_create(folder, now=NOW)
        key_pem, csr_pem = make_key_and_request("node1")
        key = load_pem_private_key(key_pem, password=None)
        assert isinstance(key, EllipticCurvePrivateKey)
        self.key = key
        csr = parse_csr(csr_pem.decode())
        self.certificate = self.authority.issue_node_certificate(csr, cluster_id="c", node_id=NODE, now=NOW)

    def witness(self, entry: Record, **changes: Any) -> list[Record]:
        """The node's certificate and its word about an entry."""
        said = Statement(cluster_id="c", node_id=NODE, number=entry["number"], hash=entry["hash"], at="t", seen_at="t")
        payload = render_statement(replace(said, **changes))
        signature = base64.b64encode(self.key.sign(witness_message(payload), ECDSA(hashes.SHA256()))).decode()
        fingerprint = self.certificate.fingerprint
        return [
            {"kind": "certificate", "pem": self.certificate.pem},
            {"kind": "witness", "payload": payload, "fingerprint": fingerprint, "signature": signature},
        ]

    def export(self, entries: list[Record], witness: list[Record]) -> list[Record]:
        head, *rest = make_export(entries, authorities=self.authority.ca_pem)
        return [head, *witness, *rest]


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path / "pki")


@settings(deadline=None)
@given(message=st.binary(max_size=300), flipped=st.integers(0, 63))
def test_p256_judges_as_the_library_signs(message: bytes, flipped: int) -> None:
    signature = KEY.sign(message, ECDSA(hashes.SHA256()))
    damaged = bytearray(signature)
    damaged[-1 - flipped % 30] ^= 1 + flipped

    assert p256.is_signed_by(POINT, message, signature)
    assert not p256.is_signed_by(POINT, message + b"x", signature)
    assert not p256.is_signed_by(POINT, message, bytes(damaged))


@pytest.mark.parametrize(
    "signature", [b"", b"\x30", b"\x30\x00", b"\x30\x06\x02\x01\x00\x02\x01\x00", b"\x30\x80\x00\x00"]
)
def test_p256_when_the_signature_is_none_says_no(signature: bytes) -> None:
    assert not p256.is_signed_by(POINT, b"m", signature)


def test_p256_when_the_point_is_not_on_the_curve_says_no() -> None:
    signature = KEY.sign(b"m", ECDSA(hashes.SHA256()))

    assert not p256.is_signed_by(POINT[:-1] + bytes([POINT[-1] ^ 1]), b"m", signature)


def test_certificate_names_its_node_and_its_authority(pki: Pki, tmp_path: Path) -> None:
    (found,) = parse_certificates(pki.certificate.pem)
    (authority,) = parse_certificates(pki.authority.ca_pem)
    (stranger,) = parse_certificates(Pki(tmp_path / "other").authority.ca_pem)

    assert (found.fingerprint, found.find_node("c"), found.find_node("x")) == (pki.certificate.fingerprint, NODE, "")
    assert (found.is_issued_by(authority), found.is_issued_by(stranger)) == (True, False)


@settings(deadline=None)
@given(raw=st.binary(max_size=200))
def test_certificate_when_it_is_none_is_refused(raw: bytes) -> None:
    pem = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(raw).decode()}\n-----END CERTIFICATE-----\n"

    with pytest.raises(CertificateError):
        parse_certificates(pem)


def test_verify_export_when_a_node_signed_counts_it(pki: Pki) -> None:
    entries = make_entries(5)

    report = verify_export(pki.export(entries, pki.witness(entries[3])), public_key=PUBLIC)

    assert (report.reason, report.nodes, report.witnessed_until) == ("", 1, 4)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hash": "f" * 64}, "entry 4 is not the one that a node was shown"),
        ({"number": 9}, "a node was shown 9 entries, and the file ends at 5"),
        ({"node_id": "another"}, "is not signed by that node"),
        ({"cluster_id": "another"}, "is not signed by that node"),
    ],
)
def test_verify_export_when_a_node_says_something_else_is_not_intact(
    pki: Pki, changes: dict[str, Any], reason: str
) -> None:
    entries = make_entries(5)

    report = verify_export(pki.export(entries, pki.witness(entries[3], **changes)), public_key=PUBLIC)

    assert reason in report.reason


def test_verify_export_when_a_word_was_edited_is_not_intact(pki: Pki) -> None:
    entries = make_entries(5)
    certificate, word = pki.witness(entries[3])
    word["payload"] = word["payload"].replace('"number":4', '"number":3')

    report = verify_export(pki.export(entries, [certificate, word]), public_key=PUBLIC)

    assert "is not signed by that node" in report.reason


def test_verify_export_when_the_node_is_of_another_authority_is_not_intact(pki: Pki, tmp_path: Path) -> None:
    entries = make_entries(5)
    known = Pki(tmp_path / "other").authority.ca_pem

    report = verify_export(pki.export(entries, pki.witness(entries[3])), public_key=PUBLIC, authorities=known)

    assert "is of another authority" in report.reason


def test_verify_export_when_a_nodes_record_says_otherwise_is_not_intact() -> None:
    records = make_export(make_entries(5))

    assert verify_export(records, node_record={4: "f" * 64}).reason.startswith("entry 4 is not the one")
    assert verify_export(records, node_record={7: "f" * 64}).reason.startswith("a node was shown 7 entries")
    assert verify_export(records, node_record={4: records[4]["hash"]}).witnessed_until == 4


@pytest.mark.parametrize("line", ["{", "[]", '{"payload": 1}', '{"payload": "{}"}'])
def test_read_record_when_it_is_none_is_refused(line: str) -> None:
    with pytest.raises(ProofError):
        read_record([line])

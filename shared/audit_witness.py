"""What a node says of a checkpoint of the audit log: which end it was shown, signed with the key of its certificate.

Who has the controller's database and its root key can write another log and sign it. The nodes have signed the first
one, with keys that the controller never had, and each keeps what it was shown in a file of its own. Pure, and of the
standard library alone, as `audit_proof` is.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from shared import p256
from shared.audit_proof import ProofError, parse_checkpoint, render_canonical
from shared.node_certificate import Certificate, CertificateError, parse_certificates

WITNESS_TYPE: Final = "application/vnd.wcp360.audit-witness.v1+json"


@dataclass(frozen=True, slots=True)
class Statement:
    """A node was shown that the log ends like this."""

    cluster_id: str
    node_id: str
    number: int
    hash: str
    at: str
    """When the controller made the checkpoint, ISO 8601."""
    seen_at: str
    """When the node saw it, by its own clock."""


def render_statement(statement: Statement) -> str:
    """What the node signs, as text."""
    return render_canonical(asdict(statement)).decode()


def parse_statement(payload: str) -> Statement:
    """Decode what a node signed.

    Raises:
        ProofError: It is no such thing.
    """
    try:
        content = json.loads(payload)
        found = Statement(**content)
    except (ValueError, TypeError) as error:
        raise ProofError(f"not a node's word about a checkpoint: {error}") from error
    texts = (found.cluster_id, found.node_id, found.hash, found.at, found.seen_at)
    if not all(isinstance(text, str) for text in texts) or type(found.number) is not int or found.number < 1:
        raise ProofError("not a node's word about a checkpoint: a field has another type")
    return found


def witness_message(payload: str) -> bytes:
    """The bytes that are signed. Source: DSSE protocol.md, "PAE"."""
    raw = payload.encode()
    return b"DSSEv1 %d %s %d %s" % (len(WITNESS_TYPE), WITNESS_TYPE.encode(), len(raw), raw)


def is_statement_signed(payload: str, signature: str, certificate: Certificate) -> bool:
    """Whether the owner of the certificate's key signed it.

    The signature is DER of ECDSA with SHA-256, in base64.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return p256.is_signed_by(certificate.public_point, witness_message(payload), raw)


def read_record(lines: Iterable[str]) -> dict[int, str]:
    """The file that a node keeps of what it was shown: number of the entry to its hash.

    Raises:
        ProofError: A line is none of it.
    """
    seen: dict[int, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = parse_checkpoint(json.loads(line)["payload"])
        except (ValueError, TypeError, KeyError) as error:
            raise ProofError(f"line {number} is no line of a node's record: {error}") from error
        seen[found.number] = found.hash
    return seen


class Witnesses:
    """The witnesses of an export, judged one after the other."""

    def __init__(self, cluster_id: str, authorities: str) -> None:
        """`authorities` is PEM.

        Raises:
            ProofError: It holds no certificate.
        """
        self._cluster_id = cluster_id
        self._certificates: dict[str, Certificate] = {}
        self.nodes: set[str] = set()
        try:
            self._authorities = parse_certificates(authorities)
        except CertificateError as error:
            raise ProofError(f"the certificate authority of the nodes: {error}") from error

    def take_certificate(self, pem: str) -> None:
        """A node's certificate, which an authority must have issued.

        Raises:
            ProofError: None did.
        """
        try:
            (found,) = parse_certificates(pem)
        except (CertificateError, ValueError) as error:
            raise ProofError(f"the certificate of a node: {error}") from error
        if not any(found.is_issued_by(authority) for authority in self._authorities):
            raise ProofError(f"the certificate {found.fingerprint[:16]} of a node is of another authority")
        self._certificates[found.fingerprint] = found

    def take(self, record: Mapping[str, Any]) -> Statement:
        """A node's word; what it says of the log is for the caller to compare.

        Raises:
            ProofError: It is not the node's.
        """
        found = parse_statement(record["payload"])
        certificate = self._certificates.get(record["fingerprint"])
        if certificate is None:
            raise ProofError(f"node {found.node_id} signed entry {found.number} with a certificate that is not here")
        is_theirs = certificate.find_node(self._cluster_id) == found.node_id and found.cluster_id == self._cluster_id
        if not is_theirs or not is_statement_signed(record["payload"], record["signature"], certificate):
            raise ProofError(f"the word of node {found.node_id} about entry {found.number} is not signed by that node")
        self.nodes.add(found.node_id)
        return found

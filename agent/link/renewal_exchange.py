"""One renewal: a fresh key, a request that the present key signs, and the answer put in its place."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

from agent.link.authorities import find_authorities
from agent.link.enrolment_http import ControllerClient, explain_refusal, parse_json
from agent.link.enrolment_keys import make_key_and_request, require_certificate_fits, write_private_file
from agent.link.settings import AgentSettings, NodePaths
from shared.errors import InvalidInputError
from shared.protocol.enrolment import EnrolmentState
from shared.protocol.renewal import RENEWAL_PATH, RenewalReply, RenewalRequest, renewal_message

_REQUEST_HEAD = b"-----BEGIN CERTIFICATE REQUEST-----"


def renew_once(settings: AgentSettings, paths: NodePaths, *, client: ControllerClient | None = None) -> RenewalReply:
    """Ask for the next certificate and begin to use it. After a lost answer: the same key and request again.

    The reply is pending while an administrator has to decide; nothing was changed then, and asking again is right.

    Changes: node.pem, whole or not at all; next.pem.

    Raises:
        SetupError: Nobody answers, or the answer is no; context["code"] is the controller's.
        InvalidInputError: The present key or certificate cannot be read.
        OSError: The disk.
    """
    present = paths.node_pem.read_bytes()
    key = _parse_key(present)
    key_pem, csr_pem = _ensure_next(paths.next_pem, key, settings.node_id)
    body = msgspec.json.encode(_make_request(present, key, csr_pem, _hash_machine_id(paths.machine_id)))
    ca_pem = find_authorities(settings, paths).read_text(encoding="ascii", errors="replace")
    answer = (client or ControllerClient(settings.controller_url)).post_json(RENEWAL_PATH, body, ca_pem=ca_pem)
    if not 200 <= answer.status < 300:
        raise explain_refusal(answer)
    # The reply's authority is not believed: what is comes with the trust bundle.
    reply: RenewalReply = parse_json(answer, RenewalReply)
    if reply.state is EnrolmentState.PENDING:
        return reply
    require_certificate_fits(reply.certificate_pem, key_pem)
    write_private_file(paths.node_pem, key_pem + reply.certificate_pem.encode())
    paths.next_pem.unlink()
    return reply


def _hash_machine_id(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes().strip()).hexdigest()
    except OSError as error:
        raise InvalidInputError(f"{path} cannot be read") from error


def _parse_key(pem: bytes) -> EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except ValueError as error:
        raise InvalidInputError("the node's key cannot be read") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise InvalidInputError("the node's key is of another kind")
    return key


def _ensure_next(path: Path, present: EllipticCurvePrivateKey, name: str) -> tuple[bytes, str]:
    """Key and request of a renewal that was interrupted, else new ones, on the disk before anybody sees them."""
    kept = _find_next(path, present)
    if kept is not None:
        return kept
    key_pem, csr_pem = make_key_and_request(name)
    write_private_file(path, key_pem + csr_pem)
    return key_pem, csr_pem.decode()


def _find_next(path: Path, present: EllipticCurvePrivateKey) -> tuple[bytes, str] | None:
    try:
        key_pem, head, rest = path.read_bytes().partition(_REQUEST_HEAD)
        key = _parse_key(key_pem)
    except (FileNotFoundError, InvalidInputError):
        return None
    # In use already: the last renewal ended between its certificate and the removal of this file.
    if key.public_key() == present.public_key() or not head:
        return None
    return key_pem, (head + rest).decode("ascii", errors="replace")


def _make_request(present: bytes, key: EllipticCurvePrivateKey, csr_pem: str, machine_id_hash: str) -> RenewalRequest:
    try:
        certificate = x509.load_pem_x509_certificate(present)
    except ValueError as error:
        raise InvalidInputError("the node's certificate cannot be read") from error
    signed_at = int(time.time())
    return RenewalRequest(
        certificate_pem=certificate.public_bytes(Encoding.PEM).decode(),  # and not the file, which holds the key
        csr_pem=csr_pem,
        signed_at=signed_at,
        signature=key.sign(renewal_message(csr_pem, signed_at, machine_id_hash), ECDSA(hashes.SHA256())),
        machine_id_hash=machine_id_hash,
    )

"""Signs what a witness says with the key of the node's certificate. Needs `cryptography`: imported when it is used.

Nothing of another kind is signed with it: the key also proves to the controller who the node is.
"""

from __future__ import annotations

import base64
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from agent.link.settings import NodePaths
from agent.link.witness import NodeSignature
from shared.audit_witness import WITNESS_TYPE
from shared.errors import InvalidInputError

_START: Final = b"DSSEv1 %d %s " % (len(WITNESS_TYPE), WITNESS_TYPE.encode())


def sign_with_node_key(paths: NodePaths, message: bytes) -> NodeSignature:
    """Sign with the key that belongs to the present certificate.

    Raises:
        InvalidInputError: The message is of another kind, or the key cannot be read.
        OSError: The file cannot be read.
    """
    if not message.startswith(_START):
        raise InvalidInputError("only what a witness says is signed")
    pem = paths.node_pem.read_bytes()
    try:
        key = load_pem_private_key(pem, password=None)
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise InvalidInputError("the node's key cannot be read") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise InvalidInputError("the node's key is of another kind")
    return NodeSignature(
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        signature=base64.b64encode(key.sign(message, ECDSA(hashes.SHA256()))).decode(),
    )

"""What somebody pastes as a public key, read strictly. No message repeats it: it may be a private one. Pure."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from controller.core.fields import require_text
from shared.errors import InvalidInputError
from shared.specs.ssh_access import MAX_BLOB_CHARACTERS, SSH_KEY_TYPES, is_blob_of

FIELD: Final = "public_key"
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 16_384
MAX_COMMENT_LENGTH: Final = 200
_PRIVATE_MARKS: Final = ("PRIVATE KEY", "PUTTY-USER-KEY-FILE", "PRIVATE-LINES:", "B3BLBNNZAC1RZXKTDJE")
"""PEM and OpenSSH, PuTTY, and the beginning of an OpenSSH private key's base64 (openssh-key-v1)."""
_HINT: Final = "Paste the one line of a file such as ~/.ssh/id_ed25519.pub."


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that may log in."""

    key_type: str
    blob: str
    comment: str

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it. Source: OpenSSH, sshkey_fingerprint (SHA-256, base64 without padding)."""
        digest = hashlib.sha256(base64.b64decode(self.blob)).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def parse_public_key(raw: str) -> PublicKey:
    """Read one line of type, base64 and an optional comment.

    Raises:
        InvalidInputError: It is something else (a private key, options, several lines, a certificate), or too weak.
    """
    _refuse_private(raw)
    text = raw.strip()
    if len(text.splitlines()) > 1:
        raise _refusal("a key is one line; add each key by itself")
    key_type, _, rest = text.partition(" ")
    blob, _, comment = rest.strip().partition(" ")
    if key_type not in SSH_KEY_TYPES:
        raise _refuse_type(key_type, rest)
    if not blob or len(blob) > MAX_BLOB_CHARACTERS or not is_blob_of(blob, key_type):
        raise _refusal("the base64 part is damaged, or belongs to another type of key")
    _require_strong(key_type, blob)
    blob = base64.b64encode(base64.b64decode(blob)).decode()
    return PublicKey(key_type, blob, require_text(FIELD, comment, high=MAX_COMMENT_LENGTH))


def _refuse_private(raw: str) -> None:
    upper = raw.upper()
    if any(mark in upper for mark in _PRIVATE_MARKS):
        raise InvalidInputError(
            "this is a private key, and it was not kept; it should have left your computer for nobody",
            field=FIELD,
            hint="Make a new pair with ssh-keygen -t ed25519 and paste the line of its .pub file.",
        )


def _refuse_type(key_type: str, rest: str) -> InvalidInputError:
    if key_type == "ssh-dss":
        return _refusal("DSA keys are broken, and sshd does not take them any more")
    if "-cert-v01@" in key_type:
        return _refusal("this is a certificate; a plain public key is wanted")
    if any(word in SSH_KEY_TYPES or word == "ssh-dss" for word in rest.split()):
        return InvalidInputError(
            "options before the key are not taken",
            field=FIELD,
            hint="Leave them out; say from where and until when in allowed_networks and expires_at.",
        )
    return _refusal("this is no public key of a type that may log in")


def _require_strong(key_type: str, blob: str) -> None:
    try:
        key = load_ssh_public_key(f"{key_type} {blob}".encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise _refusal("the base64 part is damaged") from error
    if isinstance(key, RSAPublicKey) and not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
        raise InvalidInputError(
            f"an RSA key has {MIN_RSA_BITS} to {MAX_RSA_BITS} bits; this one has {key.key_size}",
            field=FIELD,
            hint="Make a new one with ssh-keygen -t ed25519.",
        )


def _refusal(message: str) -> InvalidInputError:
    return InvalidInputError(message, field=FIELD, hint=_HINT)

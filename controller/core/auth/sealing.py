"""Secrets that must be read again (those of second factors), encrypted by a key that never is in the database."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import UnavailableError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
"""Source: NIST SP 800-38D section 5.2.1.1 (96 bits)."""


class Sealer:
    """AES-256-GCM; what was sealed for one owner does not open for another."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def of_file(cls, path: Path) -> Sealer:
        """With the key of the file, which is made with mode 0600 when it is missing.

        Raises:
            UnavailableError: It cannot be read, or holds no key.
        """
        try:
            key = _ensure_key(path)
        except OSError as error:
            raise UnavailableError(f"the key {path} cannot be read: {error.strerror}") from error
        if len(key) != KEY_BYTES:
            raise UnavailableError(f"the key {path} is no key of {KEY_BYTES} bytes")
        return cls(key)

    def seal(self, secret: bytes, owner: str) -> bytes:
        """Nonce and ciphertext."""
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, owner.encode())

    def open(self, sealed: bytes, owner: str) -> bytes:
        """The secret.

        Raises:
            UnavailableError: It was sealed with another key or for somebody else, or was changed.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner.encode())
        except (InvalidTag, ValueError) as error:
            raise UnavailableError(
                "a second factor cannot be read with this process's key",
                hint="Give every API process the same secrets.key (setting secrets_key_file).",
            ) from error


def _ensure_key(path: Path) -> bytes:
    """Two processes that start at once agree on one key: the file appears whole, and only once."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
        temporary.unlink(missing_ok=True)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(os.urandom(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            pass
        finally:
            temporary.unlink(missing_ok=True)
    return path.read_bytes()

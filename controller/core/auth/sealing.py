"""Secrets that must be read again (those of second factors), encrypted by a key that never is in the database."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shared.errors import UnavailableError

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
"""Source: NIST SP 800-38D section 5.2.1.1 (96 bits)."""


class Sealer:
    """AES-256-GCM; what was sealed for one owner does not open for another.

    Args:
        key: Itself, or the file that holds it. The file is read, or made, when it is first needed: a process that lets
            nobody sign in never needs it.
    """

    def __init__(self, key: bytes | Path) -> None:
        self._key = key

    @cached_property
    def _cipher(self) -> AESGCM:
        if isinstance(self._key, bytes):
            return AESGCM(self._key)
        try:
            key = _ensure_key(self._key)
        except OSError as error:
            raise UnavailableError(f"the key {self._key} cannot be read: {error.strerror}") from error
        if len(key) != KEY_BYTES:
            raise UnavailableError(f"the key {self._key} is no key of {KEY_BYTES} bytes")
        return AESGCM(key)

    def seal(self, secret: bytes, owner: str) -> bytes:
        """Nonce and ciphertext.

        Raises:
            UnavailableError: The key's file cannot be read or made, or holds no key.
        """
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, secret, owner.encode())

    def open(self, sealed: bytes, owner: str) -> bytes:
        """The secret.

        Raises:
            UnavailableError: It was sealed with another key or for somebody else, or was changed; or as `seal`.
        """
        cipher = self._cipher
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], owner.encode())
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

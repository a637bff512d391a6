"""Private keys on disk: written once, complete or not at all, for the controller's user only."""

from __future__ import annotations

import os
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from controller import faults
from shared.errors import UnavailableError


def ensure_pki_dir(path: Path) -> None:
    """Make the folder with mode 0700, also when it existed with another one."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.chmod(0o700)


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Write a file so that after a power cut it is there whole, or as it was before."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    faults.at("keyfile.before_rename")
    temporary.replace(path)
    faults.at("keyfile.after_rename")
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def ensure_p256_key(path: Path) -> EllipticCurvePrivateKey:
    """Read the key, or make it.

    Raises:
        UnavailableError: It is there and cannot be read.
    """
    if not path.exists():
        _write_key(path, generate_private_key(SECP256R1()))
    key = _read_key(path)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise UnavailableError(f"the key {path} is no P-256 key")
    return key


def ensure_ed25519_key(path: Path) -> Ed25519PrivateKey:
    """Read the key, or make it.

    Raises:
        UnavailableError: It is there and cannot be read.
    """
    if not path.exists():
        _write_key(path, Ed25519PrivateKey.generate())
    key = _read_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise UnavailableError(f"the key {path} is no Ed25519 key")
    return key


def _write_key(path: Path, key: EllipticCurvePrivateKey | Ed25519PrivateKey) -> None:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    write_durably(path, pem)


def _read_key(path: Path) -> PrivateKeyTypes:
    try:
        return serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, UnsupportedAlgorithm, OSError) as error:
        raise UnavailableError(
            f"the key {path} cannot be read", hint="Restore the pki folder from a backup."
        ) from error

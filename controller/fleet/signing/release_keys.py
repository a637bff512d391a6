"""The keys that sign releases of the agent, in files: apart from the job keys, and living much longer."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.fleet.signing.job_keys import public_bytes
from controller.fleet.signing.keyfiles import ensure_ed25519_key
from shared.protocol.release import ReleaseKey

RELEASE_KEY_LIFETIME: Final = timedelta(days=730)
RELEASE_KEY_OVERLAP: Final = timedelta(days=180)


class ReleaseKeyRing:
    """Private halves of the release keys. Touches nothing before the first use."""

    def __init__(self, folder: Path, *, clock: Callable[[], datetime]) -> None:
        self._dir = folder
        self._clock = clock
        self._keys: dict[str, Ed25519PrivateKey] = {}

    def active(self) -> dict[str, Ed25519PrivateKey]:
        """The keys that sign now; makes the next one when it is time.

        Raises:
            UnavailableError: A key file cannot be read.
        """
        now = self._clock()
        paths = {path.stem.removeprefix("release-"): path for path in self._dir.glob("release-*.key")}
        self._keys = {kid: self._keys.get(kid) or ensure_ed25519_key(path) for kid, path in paths.items()}
        if not any(_issued_at(kid) <= now < _issued_at(kid) + _FRESH for kid in self._keys):
            kid = f"{int(now.timestamp())}-{secrets.token_hex(4)}"
            self._keys[kid] = ensure_ed25519_key(self._dir / f"release-{kid}.key")
        return {kid: key for kid, key in self._keys.items() if _issued_at(kid) <= now < _end_of(kid)}

    def list_public(self) -> tuple[ReleaseKey, ...]:
        """Public halves of the keys that sign now."""
        return tuple(
            ReleaseKey(
                kid=kid,
                public_key=public_bytes(key),
                # Nodes whose clock is behind take releases of a fresh key too.
                not_before=(_issued_at(kid) - timedelta(minutes=10)).timestamp(),
                expires_at=_end_of(kid).timestamp(),
            )
            for kid, key in sorted(self.active().items())
        )


_FRESH: Final = RELEASE_KEY_LIFETIME - RELEASE_KEY_OVERLAP


def _issued_at(kid: str) -> datetime:
    return datetime.fromtimestamp(int(kid.partition("-")[0]), UTC)


def _end_of(kid: str) -> datetime:
    return _issued_at(kid) + RELEASE_KEY_LIFETIME

"""The keys that sign jobs, in files: one for about a month, the next one before the last one ends.

Several processes may share the folder (the signer and a command that rotates): each looks again when it has changed.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.fleet.signing.keyfiles import ensure_ed25519_key, write_durably
from shared.errors import NotFoundError
from shared.protocol.trust import JobKey

JOB_KEY_LIFETIME: Final = timedelta(days=30)
JOB_KEY_OVERLAP: Final = timedelta(days=10)
"""A new key is made this long before the last one ends: a node that slept so long still finds a signature it knows."""
REVOKED_KEPT: Final = timedelta(days=30)
"""How long after its end a revoked key is still named as revoked; nobody takes it then anyway."""
ROTATE_PAUSE: Final = timedelta(minutes=1)
"""Asked again within this time, a rotation answers with the key that it just made: a retry makes no second one."""
STATE_FILE: Final = "job-keys.json"


class _State(msgspec.Struct, kw_only=True):
    """What file names do not say. Times are seconds since the epoch."""

    ends: dict[str, float] = msgspec.field(default_factory=dict)
    """Key id to an end before the usual one: of keys that were rotated away."""
    revoked: list[str] = msgspec.field(default_factory=list)


class JobKeyRing:
    """Private halves of the job keys. Touches nothing before `open`."""

    def __init__(self, folder: Path, *, clock: Callable[[], datetime]) -> None:
        self._dir = folder
        self._clock = clock
        self._keys: dict[str, Ed25519PrivateKey] = {}
        self._state = _State()
        self._stamp = -1

    def open(self) -> None:
        """Read what is there, when it changed, and see that there is a key with some life in it.

        Raises:
            UnavailableError: A key file cannot be read.
        """
        stamp = self._dir.stat().st_mtime_ns
        if stamp != self._stamp:
            self._read()
            self._stamp = stamp
        now = self._clock()
        if not any(_issued_at(kid) <= now < self._end_of(kid) - JOB_KEY_OVERLAP for kid in self._usable()):
            self._add()

    def active(self) -> dict[str, Ed25519PrivateKey]:
        """The keys that sign now."""
        self.open()
        now = self._clock()
        return {kid: self._keys[kid] for kid in self._usable() if _issued_at(kid) <= now < self._end_of(kid)}

    def list_public(self) -> tuple[JobKey, ...]:
        """Public halves of all keys that have not ended and were not revoked."""
        self.open()
        now = self._clock()
        return tuple(self._describe(kid) for kid in sorted(self._usable()) if now < self._end_of(kid))

    def list_revoked(self) -> tuple[str, ...]:
        """Key ids that nodes are told not to believe, while somebody still might."""
        self.open()
        now = self._clock()
        return tuple(kid for kid in sorted(self._state.revoked) if now < _issued_at(kid) + _WHOLE_LIFE)

    def rotate(self) -> JobKey:
        """A new key now; the others go on signing beside it for the overlap, and then end."""
        self.open()
        now = self._clock()
        fresh = [kid for kid in self._usable() if now - _issued_at(kid) < ROTATE_PAUSE and kid not in self._state.ends]
        if fresh and self._state.ends:
            return self._describe(max(fresh))
        overlap_ends = (now + JOB_KEY_OVERLAP).timestamp()
        for kid in self._usable():
            self._state.ends[kid] = min(self._end_of(kid).timestamp(), overlap_ends)
        self._write()
        return self._describe(self._add())

    def revoke(self, kid: str) -> None:
        """Never sign with this key again, and let nodes be told. Again: nothing happens.

        Raises:
            NotFoundError: There is no such key.
        """
        self.open()
        if kid in self._state.revoked:
            return
        if kid not in self._keys:
            raise NotFoundError(f"there is no job key {kid[:40]!r}")
        self._state.revoked.append(kid)
        self._write()
        self.open()

    # --- inside -------------------------------------------------------------------------------------------------------

    def _usable(self) -> Iterator[str]:
        return (kid for kid in self._keys if kid not in self._state.revoked)

    def _end_of(self, kid: str) -> datetime:
        usual = _issued_at(kid) + JOB_KEY_LIFETIME
        early = self._state.ends.get(kid)
        return usual if early is None else min(usual, datetime.fromtimestamp(early, UTC))

    def _describe(self, kid: str) -> JobKey:
        return JobKey(
            kid=kid,
            public_key=public_bytes(self._keys[kid]),
            # Nodes whose clock is behind take jobs of a fresh key too.
            not_before=(_issued_at(kid) - timedelta(minutes=10)).timestamp(),
            expires_at=self._end_of(kid).timestamp(),
        )

    def _add(self) -> str:
        kid = f"{int(self._clock().timestamp())}-{secrets.token_hex(4)}"
        self._keys[kid] = ensure_ed25519_key(self._dir / f"job-{kid}.key")
        self._stamp = -1
        return kid

    def _read(self) -> None:
        paths = {path.stem.removeprefix("job-"): path for path in self._dir.glob("job-*.key")}
        self._keys = {kid: self._keys.get(kid) or ensure_ed25519_key(path) for kid, path in paths.items()}
        state_path = self._dir / STATE_FILE
        self._state = msgspec.json.decode(state_path.read_bytes(), type=_State) if state_path.exists() else _State()

    def _write(self) -> None:
        write_durably(self._dir / STATE_FILE, msgspec.json.encode(self._state))
        self._stamp = -1


_WHOLE_LIFE: Final = JOB_KEY_LIFETIME + REVOKED_KEPT


def _issued_at(kid: str) -> datetime:
    """Key ids begin with the second they were made in, so that a key needs no second file."""
    return datetime.fromtimestamp(int(kid.partition("-")[0]), UTC)


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    """32 bytes of Ed25519."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

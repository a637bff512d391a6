"""What was there before: one Struct for each kind of action, in msgpack, kept in the executor's journal.

Invariant: a record holds everything that undo needs, so a restarted executor can take back what its predecessor began.
"""

from __future__ import annotations

import enum
import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from agent.contract.facts import UserFact
from agent.contract.host import UndoRecord
from agent.system import faults
from shared.errors import FactError
from shared.specs.account import ResourceLimits

MAX_INLINE_BYTES: Final = 64 * 1024
"""Larger contents lie beside the journal as files named by their SHA-256."""


class PathKind(enum.Enum):
    """What can lie at a path."""

    ABSENT = "absent"
    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


class _Undo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="undo"):
    """Base of all records."""


class PathState(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One path before. `content` or `checkpoint` (a SHA-256) where it was a file."""

    kind: PathKind
    uid: int = 0
    gid: int = 0
    mode: int = 0
    link: str | None = None
    content: bytes | None = None
    checkpoint: str | None = None


class PathsUndo(_Undo, frozen=True, kw_only=True, tag="paths"):
    """Paths, in the order they were captured."""

    paths: dict[str, PathState]


class SliceUndo(_Undo, frozen=True, kw_only=True, tag="slice"):
    """What systemd kept for a user's slice."""

    uid: int
    is_ours: bool
    """False: nothing was set on it, and undo leaves no trace."""
    is_active: bool
    limits: ResourceLimits


class UserUndo(_Undo, frozen=True, kw_only=True, tag="user"):
    """A user before; None: there was none."""

    user: UserFact | None
    password_field: str = ""
    """Second field of shadow(5), without the lock's exclamation mark. The record is as secret as /etc/shadow."""
    slice: SliceUndo | None = None


class HomeUndo(_Undo, frozen=True, kw_only=True, tag="home"):
    """An account's home before."""

    state: PathState
    quota_bytes: int | None = None


class PackagesUndo(_Undo, frozen=True, kw_only=True, tag="packages"):
    """Which packages were not there before an installation, or were before a removal, with changed conffiles."""

    names: tuple[str, ...]
    """Of those asked for."""
    companions: tuple[str, ...] = ()
    """Further packages that come with them."""
    conffiles: dict[str, PathState] = msgspec.field(default_factory=dict)


class UnitUndo(_Undo, frozen=True, kw_only=True, tag="unit"):
    """A unit before."""

    is_running: bool
    is_enabled: bool


class NothingUndo(_Undo, frozen=True, kw_only=True, tag="nothing"):
    """There is nothing to bring back."""


AnyUndo = PathsUndo | SliceUndo | UserUndo | HomeUndo | PackagesUndo | UnitUndo | NothingUndo

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[AnyUndo] = msgspec.msgpack.Decoder(AnyUndo)


def encode_undo(record: AnyUndo) -> UndoRecord:
    return _ENCODER.encode(record)


def decode_undo(raw: UndoRecord) -> AnyUndo:
    """Decode a record of this or an earlier executor.

    Raises:
        FactError: It is none.
    """
    try:
        return _DECODER.decode(raw)
    except msgspec.MsgspecError as error:
        raise FactError(f"an undo record cannot be read: {error}", code="undo_unreadable") from error


class Checkpoints:
    """Contents too large for the journal, as files named by their hash (so that keeping twice is keeping once)."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def keep(self, state: PathState, content: bytes | None) -> PathState:
        """Return the state with its content, on disk before this returns."""
        if content is None or len(content) <= MAX_INLINE_BYTES:
            return msgspec.structs.replace(state, content=content)
        digest = hashlib.sha256(content).hexdigest()
        target = self.directory / digest
        if not self.directory.is_dir():
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _sync(self.directory.parent)
        if not target.exists():
            temporary = self.directory / f"{digest}.{os.getpid()}.tmp"
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
            faults.at("checkpoint.before_rename")
            temporary.rename(target)
            faults.at("checkpoint.after_rename")
        # Also one that was there: whoever put it there may have died before it was safe.
        _sync(self.directory)
        faults.at("checkpoint.after_sync")
        return msgspec.structs.replace(state, checkpoint=digest)

    def content_of(self, state: PathState) -> bytes | None:
        """Return a kept content; None where the state has none.

        Raises:
            FactError: The copy is gone or is not what was kept.
        """
        if state.checkpoint is None:
            return state.content
        try:
            content = (self.directory / state.checkpoint).read_bytes()
        except OSError as error:
            raise FactError(f"the checkpoint {state.checkpoint} cannot be read", code="checkpoint_lost") from error
        if hashlib.sha256(content).hexdigest() != state.checkpoint:
            raise FactError(f"the checkpoint {state.checkpoint} is damaged", code="checkpoint_lost")
        return content

    def prune(self, records: Iterable[UndoRecord]) -> None:
        """Remove copies that none of these records needs."""
        needed = {state.checkpoint for record in records for state in _states(decode_undo(record))}
        if self.directory.is_dir():
            for path in self.directory.iterdir():
                if path.name not in needed:
                    path.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _states(record: AnyUndo) -> Iterable[PathState]:
    if isinstance(record, PathsUndo):
        return record.paths.values()
    return record.conffiles.values() if isinstance(record, PackagesUndo) else ()

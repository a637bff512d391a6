"""What the updater knows: the attempt under way, the lowest release it may still take, how the last one ended.

Small JSON files, each replaced as a whole. A reader of the release before finds what it needs: fields are only added.
"""

from __future__ import annotations

import enum
import os
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from shared.errors import FactError
from shared.protocol.job import ErrorBody
from shared.protocol.update import OUTCOME_FILE, UpdateReport

STATE_FILE: Final = "state.json"
FLOOR_FILE: Final = "floor.json"
INCOMING: Final = "incoming"

T = TypeVar("T", bound=msgspec.Struct)


class Phase(enum.Enum):
    """How far an attempt is. Until PROBATION has ended well, every restart of the updater leads back."""

    PREPARED = "prepared"
    """The new version lies beside the others; nothing that runs was touched."""
    SWITCHING = "switching"
    PROBATION = "probation"
    """The new version was started and has to reach the controller."""
    COMMITTING = "committing"
    RETURNING = "returning"


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """Content of state.json; there is none between two attempts."""

    attempt_id: str
    phase: Phase
    number: int
    version: str
    build: str
    from_build: str
    units_before: dict[str, str | None] = {}
    """Unit file to its text before the switch; None: there was none."""
    error: ErrorBody | None = None
    """Why it goes back."""


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """Content of floor.json: what is behind us."""

    number: int = 0
    """Of the newest release that ran here."""
    keys_version: int = 0
    """Of the newest list of release keys that was seen."""
    seen_at: float = 0.0
    """Latest time in a document whose signature was good: a clock that is set back does not revive an old one."""


class UpdaterFiles:
    """The state folder of the updater."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def incoming(self) -> Path:
        """Where a bundle is received and unpacked."""
        return self.folder / INCOMING

    def find_attempt(self) -> Attempt | None:
        """The attempt that is under way.

        Raises:
            FactError: The file is there and makes no sense.
        """
        return _read(self.folder / STATE_FILE, Attempt)

    def save_attempt(self, attempt: Attempt) -> Attempt:
        """Put it on the disk."""
        write_durably(self.folder / STATE_FILE, msgspec.json.encode(attempt))
        return attempt

    def end_attempt(self) -> None:
        """There is none any more."""
        (self.folder / STATE_FILE).unlink(missing_ok=True)
        sync_folder(self.folder)

    def read_floor(self) -> Floor:
        """What is behind us; nothing when the file is lost or damaged: the version's own order still holds."""
        try:
            return _read(self.folder / FLOOR_FILE, Floor) or Floor()
        except FactError:
            return Floor()

    def raise_floor(self, floor: Floor) -> None:
        """Never lower than it was."""
        before = self.read_floor()
        higher = Floor(
            number=max(before.number, floor.number),
            keys_version=max(before.keys_version, floor.keys_version),
            seen_at=max(before.seen_at, floor.seen_at),
        )
        if higher != before:
            write_durably(self.folder / FLOOR_FILE, msgspec.json.encode(higher))

    def find_outcome(self) -> UpdateReport | None:
        """How the last attempt ended."""
        try:
            return _read(self.folder / OUTCOME_FILE, UpdateReport)
        except FactError:
            return None

    def save_outcome(self, report: UpdateReport) -> None:
        """Say how it ended, for everybody to read: it holds no secret."""
        write_durably(self.folder / OUTCOME_FILE, msgspec.json.encode(report), mode=0o644)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise FactError(f"{path} cannot be read: {error}") from error


def write_durably(path: Path, content: bytes, *, mode: int = 0o600) -> None:
    """Replace a file of our own, whole or not at all, also after a power cut."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """What was renamed or removed in it is on the disk afterwards."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

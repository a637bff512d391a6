"""Room on the disk that is kept for the bad day: when it is full, running jobs must still end, be undone and report.

The reserve is a folder beside the journal: one allocated file for the bytes, and empty ones for the inodes. It is given
up when the journal or an undo finds no room, and made again before the next job is taken; until then none is.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from pathlib import Path
from typing import Final

from shared.errors import UnavailableError

MIB: Final = 1024 * 1024
RESERVE_BYTES: Final = 16 * MIB
"""A transaction of the journal holds a job of at most 1 MiB or a result of at most 6; undo writes small files."""
RESERVE_INODES: Final = 32
LEAST_FREE_BYTES: Final = 8 * MIB
"""Beside the reserve: what one job may need before it finds out."""
LEAST_FREE_INODES: Final = 64
RESERVE_DIR: Final = "reserve"

_log = logging.getLogger(__name__)


class Room:
    """The room on the file system of the state folder, and the reserve there.

    None as folder: nothing is kept and there is always room (simulated agents).
    """

    def __init__(
        self,
        state_dir: Path | None,
        *,
        reserve_bytes: int = RESERVE_BYTES,
        least_free_bytes: int = LEAST_FREE_BYTES,
    ) -> None:
        self._state_dir = state_dir
        self._reserve_bytes = reserve_bytes
        self._least_free_bytes = least_free_bytes

    def has_room(self) -> bool:
        """Whether a new job may be taken: the reserve is there (or can be made now), and some room beside it."""
        if self._state_dir is None:
            return True
        if not self._is_reserve_whole() and not self._make_reserve():
            return False
        return self._has_free(self._least_free_bytes, LEAST_FREE_INODES)

    def release(self) -> bool:
        """Give the reserve up; whether there was one."""
        if self._state_dir is None or not self._folder.is_dir():
            return False
        shutil.rmtree(self._folder, ignore_errors=True)
        _log.warning("the disk of %s is full: the reserve is given up, and no job taken until it is back", self._folder)
        return True

    def release_if_low(self) -> bool:
        """Give the reserve up if there is next to nothing beside it; whether that was done."""
        return self._state_dir is not None and not self._has_free(MIB, 1) and self.release()

    @property
    def _folder(self) -> Path:
        return Path(self._state_dir or "/nonexistent") / RESERVE_DIR

    def _is_reserve_whole(self) -> bool:
        """The marker comes last, so a reserve that was begun and not finished does not count."""
        return (self._folder / "whole").exists()

    def _make_reserve(self) -> bool:
        if not self._has_free(self._reserve_bytes + self._least_free_bytes, RESERVE_INODES + LEAST_FREE_INODES):
            return False
        try:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder.mkdir(mode=0o700)
            descriptor = os.open(self._folder / "bytes", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._reserve_bytes)
            finally:
                os.close(descriptor)
            for number in range(RESERVE_INODES):
                (self._folder / f"inode-{number}").touch(mode=0o600)
            (self._folder / "whole").touch(mode=0o600)
        except OSError as error:
            _log.warning("the reserve of the disk cannot be made: %s", error)
            with contextlib.suppress(OSError):
                shutil.rmtree(self._folder)
            return False
        return True

    def _has_free(self, size_bytes: int, inodes: int) -> bool:
        """Root may also use what the file system keeps for root (f_bfree); btrfs counts no inodes (f_files is 0)."""
        if self._state_dir is None:
            return True
        try:
            found = os.statvfs(self._state_dir)
        except OSError as error:
            raise UnavailableError(f"the disk of {self._state_dir} does not answer") from error
        has_inodes = found.f_files == 0 or found.f_ffree >= inodes
        return found.f_bfree * found.f_frsize >= size_bytes and has_inodes

"""Locks between processes, released by the kernel when their holder dies."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wcplab.errors import LabError

POLL_SECONDS = 0.05


@contextmanager
def locked(path: Path, *, timeout_seconds: float) -> Iterator[None]:
    """Hold an exclusive lock while the block runs. The file stays: removing it would let two holders in.

    Raises:
        LabError: somebody else holds it for longer than the time limit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Programs started meanwhile must not inherit the lock, hence close-on-exec.
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(descriptor, path, time.monotonic() + timeout_seconds)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                hint = "another wcp-lab command is at work; wait for it or end it"
                raise LabError("locked", f"{path.name} is locked", hint=hint) from error
            time.sleep(POLL_SECONDS)
        else:
            return

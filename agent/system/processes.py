"""Processes of one user: finding them wherever they are, and ending them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Final

from agent.system.cgroups import list_pids, read_hierarchies
from agent.system.slices import slice_control_group, slice_name
from agent.system.systemd import Systemd
from shared.errors import CommandError

TERM_SECONDS: Final = 5.0
KILL_SECONDS: Final = 10.0
_POLL_SECONDS: Final = 0.05


def parse_status(text: str) -> tuple[str, frozenset[int]]:
    """Parse /proc/PID/status: the state's letter, and the user's ids (real, effective, saved, file system)."""
    state, uids = "", frozenset[int]()
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name == "State":
            state = value.strip()[:1]
        elif name == "Uid":
            uids = frozenset(int(word) for word in value.split())
    return state, uids


def list_user_pids(uid: int) -> set[int]:
    """Processes that act for a user, by /proc; those that are dead already (zombies) do not count."""
    pids = (int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit())
    return {pid for pid in pids if _acts_for(pid, uid)}


def _acts_for(pid: int, uid: int) -> bool:
    state, uids = _read_status(pid)
    return uid in uids and state not in {"Z", "X", ""}


def _read_status(pid: int) -> tuple[str, frozenset[int]]:
    try:
        return parse_status(Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return "", frozenset()


class Processes:
    """Processes of accounts."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd

    async def list_pids(self, uid: int) -> set[int]:
        """Living processes of the user, and those in its slice, whoever they act for."""
        control_group = await slice_control_group(self._systemd, uid)
        return await asyncio.to_thread(_list_all, uid, control_group)

    async def end_all(self, uid: int) -> None:
        """End every process of the user: TERM, KILL after TERM_SECONDS. Sockets in the slice stay open.

        Raises:
            CommandError: One could not be ended, or new ones come faster than they end.
        """
        for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            if await self._end(uid, number, seconds):
                return
        left = sorted(await self.list_pids(uid))
        if left:
            raise CommandError(("kill", "-KILL", *map(str, left)), 1, f"processes {left} of uid {uid} do not end")

    async def _end(self, uid: int, number: int, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        pids = await self.list_pids(uid)
        if not pids:
            return True
        await self._systemd.kill(slice_name(uid), number)
        for pid in pids:
            _send(pid, uid, number)
        while pids := await self.list_pids(uid):
            if time.monotonic() > deadline:
                return False
            if number == signal.SIGKILL:
                for pid in pids:
                    _send(pid, uid, number)
            await asyncio.sleep(_POLL_SECONDS)
        return True


def _list_all(uid: int, control_group: str) -> set[int]:
    in_slice = {
        pid for pid in list_pids(read_hierarchies(), control_group) if _read_status(pid)[0] not in {"Z", "X", ""}
    }
    return in_slice | list_user_pids(uid)


def _send(pid: int, uid: int, number: int) -> None:
    """Signal a process of the user; the pidfd keeps a number that was given away meanwhile from being hit."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if _acts_for(pid, uid):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

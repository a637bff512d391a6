"""Processor time of accounts by calendar month (UTC), added up from what their slices count.

The kernel counts a slice's time from its making on, and systemd makes and removes slices as accounts wake and fall
asleep; so they are looked at often, and what a slice used more than before is added. What one used between the last
look and its end is lost. Nothing here needs a privilege.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pwd
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from agent.link.metrics import SliceUse

LOOK_SECONDS: Final = 15.0
SAVE_SECONDS: Final = 300.0
"""What is lost with the process is found again in the slices that still are there."""
FILE_MODE: Final = 0o600

_log = logging.getLogger(__name__)


def read_users() -> dict[str, int]:
    """Name of each user of this machine to its uid."""
    return {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}


class AccountCounter(msgspec.Struct, kw_only=True):
    """What was added up for one account."""

    uid: int
    source: str
    """Names the counter and whose it is (UIDxNUMBER): the next account of that name has another one."""
    slice_id: str = ""
    """Of the slice that was seen last."""
    seconds: float = 0.0
    """What that slice had used then."""
    months: dict[str, float] = msgspec.field(default_factory=dict)
    """Seconds of each month (as 202611): this one and the one before."""


class ProcessorMeter:
    """Looks now and then, and keeps what it added up in a file."""

    def __init__(
        self,
        path: Path,
        read: Callable[[], Mapping[str, SliceUse]],
        *,
        users: Callable[[], Mapping[str, int]] = read_users,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`path`: where it is kept. `read`: name of each account with a slice to what it used. `users`: name to uid."""
        self._path = path
        self._read = read
        self._now = now
        self._users = users
        self._lock = threading.Lock()
        """Whoever is cancelled saves while a look may still be under way in its thread."""
        found = _load(path)
        self._is_first = found is None
        """What slices used before anybody looked is of no month; those that are made later are counted whole."""
        self._counters = found or {}

    async def run(self) -> None:
        """Look until cancelled."""
        saved_at = time.monotonic()
        try:
            while True:
                await asyncio.to_thread(self.look)
                if time.monotonic() - saved_at >= SAVE_SECONDS:
                    saved_at = time.monotonic()
                    await asyncio.to_thread(self.save)
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self.save()

    def look(self) -> None:
        """Add what was used since the last look."""
        month, previous = _months(self._now())
        with self._lock:
            for name, use in self._read().items():
                self._add(name, use, month)
            users = self._users()
            for name, counter in list(self._counters.items()):
                if users.get(name) != counter.uid:
                    del self._counters[name]
                for old in counter.months.keys() - {month, previous}:
                    del counter.months[old]
            self._is_first = False

    def _add(self, name: str, use: SliceUse, month: str) -> None:
        counter = self._counters.get(name)
        if counter is None or counter.uid != use.uid:
            counter = AccountCounter(uid=use.uid, source=f"{use.uid}x{secrets.token_hex(4)}")
            self._counters[name] = counter
            if self._is_first:
                counter.slice_id, counter.seconds = use.slice_id, use.seconds
        is_same = counter.slice_id == use.slice_id and counter.seconds <= use.seconds
        used = use.seconds - counter.seconds if is_same else use.seconds
        counter.slice_id, counter.seconds = use.slice_id, use.seconds
        counter.months[month] = counter.months.get(month, 0.0) + used

    def gauges(self) -> dict[str, float]:
        """`accounts.NAME.processor_seconds.MONTH.SOURCE` of this month and the one before."""
        kept = _months(self._now())
        return {
            f"accounts.{name}.processor_seconds.{month}.{counter.source}": seconds
            for name, counter in list(self._counters.items())
            for month, seconds in list(counter.months.items())
            if month in kept
        }

    def save(self) -> None:
        """Write the file as a whole, so that there never is half of one."""
        temporary = self._path.with_suffix(".new")
        with self._lock:
            try:
                with temporary.open("wb") as file:
                    file.write(msgspec.json.encode(self._counters))
                    file.flush()
                    os.fsync(file.fileno())
                temporary.chmod(FILE_MODE)
                temporary.replace(self._path)
            except OSError as error:
                _log.warning("the processor time of accounts cannot be kept: %s", error)


def _months(now: datetime) -> tuple[str, str]:
    """This month and the one before, as 202611."""
    before = now.replace(day=1) - timedelta(days=1)
    return f"{now:%Y%m}", f"{before:%Y%m}"


def _load(path: Path) -> dict[str, AccountCounter] | None:
    """None: nobody has counted here before."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, AccountCounter])
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        _log.warning("the processor time of accounts is counted anew: %s", error)
        return None

"""Talks to systemd: ready, still alive, and what the process does now.

The watchdog is fed only while the link keeps its own promises (`Pulse`): an agent whose loop hangs, or that forgot to
dial, is restarted by systemd instead of being silently offline.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable
from typing import Final

GRACE_SECONDS: Final = 120.0
"""What a step may take longer than it said: a slow disk, a machine that was suspended."""


class Pulse:
    """The latest moment at which the link said that it would do its next step."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._deadline = clock() + GRACE_SECONDS

    def expect_within(self, seconds: float) -> None:
        """The next step comes within this time; say it before waiting."""
        self._deadline = self._clock() + seconds + GRACE_SECONDS

    @property
    def is_late(self) -> bool:
        """The promised step did not come."""
        return self._clock() > self._deadline


class ServiceNotifier:
    """sd_notify without a library. Does nothing outside systemd. Source: sd_notify(3), "Notes"."""

    def __init__(self, address: str | None) -> None:
        self._address = f"\0{address[1:]}" if address and address.startswith("@") else address

    @classmethod
    def from_environment(cls) -> ServiceNotifier:
        return cls(os.environ.get("NOTIFY_SOCKET"))

    def ready(self) -> None:
        self._send("READY=1")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`."""
        self._send("STATUS=" + text.replace("\n", " ")[:200])

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(1.0)
            try:
                sender.sendto(message.encode(), self._address)
            except OSError:
                # systemd being busy or gone must not stop the link; a missed WATCHDOG=1 is made up by the next one.
                return


def watchdog_interval_seconds(environment_value: str | None) -> float | None:
    """Half of what systemd waits for, or None when it does not watch. Source: sd_watchdog_enabled(3), WATCHDOG_USEC."""
    if not environment_value or not environment_value.isdigit() or int(environment_value) <= 0:
        return None
    return int(environment_value) / 2_000_000


async def feed_watchdog(notifier: ServiceNotifier, pulse: Pulse) -> None:
    """Tell systemd that all is well for as long as it is; returns at once when nobody watches."""
    interval_seconds = watchdog_interval_seconds(os.environ.get("WATCHDOG_USEC"))
    if interval_seconds is None:
        return
    while True:
        if not pulse.is_late:
            notifier.alive()
        await asyncio.sleep(interval_seconds)

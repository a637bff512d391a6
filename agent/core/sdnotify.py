"""Telling systemd that we are ready and alive. Source: sd_notify(3), sd_listen_fds(3)."""

from __future__ import annotations

import os
import socket
from typing import Final

FIRST_PASSED_FD: Final = 3
"""SD_LISTEN_FDS_START."""


def notify(state: str) -> None:
    """Send one state line, for example READY=1; does nothing when systemd does not listen."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(state.encode(), address)


def watchdog_seconds() -> float | None:
    """How often systemd wants to hear from us at the latest; None when it does not care."""
    raw = os.environ.get("WATCHDOG_USEC", "")
    return int(raw) / 1_000_000 if raw.isdigit() else None


def take_passed_socket() -> socket.socket | None:
    """The listening socket that systemd holds for us; None when we were not started by one."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS") != "1":
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    listening = socket.socket(fileno=FIRST_PASSED_FD)
    listening.set_inheritable(False)
    return listening

"""Tells systemd how this process does. Source: sd_notify(3)."""

from __future__ import annotations

import os
import socket
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"


def notify_systemd(state: str) -> bool:
    """Send for example READY=1 or STOPPING=1; False when nobody waits for it or nobody hears it."""
    address = os.environ.get(VARIABLE, "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.connect(address)
            line.sendall(state.encode())
    except OSError:
        return False
    return True

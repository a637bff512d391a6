"""Asking the node's own web server for a page, without a network.

The executor has a network namespace of its own and nothing in it. nginx listens on PROBE_SOCKET, too (module web), with
the same sites as on port 80.
"""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from typing import Final

from agent.contract.facts import HttpFact

PROBE_SOCKET: Final = Path("/run/wcp360/probe.sock")
TIMEOUT_SECONDS: Final = 5.0
MAX_BODY_CHARACTERS: Final = 1000


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, host_name: str, socket_path: Path) -> None:
        super().__init__(host_name, timeout=TIMEOUT_SECONDS)
        self._socket_path = socket_path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.sock.settimeout(TIMEOUT_SECONDS)
        self.sock.connect(str(self._socket_path))


def http_get(host_name: str, path: str, *, socket_path: Path = PROBE_SOCKET) -> HttpFact | None:
    """See Probe.http_get. Redirects are reported, not followed."""
    connection = _UnixConnection(host_name, socket_path)
    try:
        connection.request("GET", path, headers={"User-Agent": "wcp360-probe", "Connection": "close"})
        answer = connection.getresponse()
        # Four bytes at most for each character.
        body = answer.read(MAX_BODY_CHARACTERS * 4).decode("utf-8", "replace")[:MAX_BODY_CHARACTERS]
        return HttpFact(status=answer.status, body_start=body)
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()

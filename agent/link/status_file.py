"""What the link does now, for the installer, `wcp-agent status` and an operator: /run/wcp360-agent/status.json."""

from __future__ import annotations

import enum
from pathlib import Path

import msgspec

from shared.version import __version__


class LinkState(enum.Enum):
    """Where the link stands."""

    STARTING = "starting"
    CONNECTING = "connecting"
    CONNECTED = "connected"
    WAITING = "waiting"
    """The last attempt failed or the session ended; it tries again at `next_attempt_at`."""
    REVOKED = "revoked"
    """The controller does not know this node any more; it asks rarely."""
    REJECTED = "rejected"
    """The controller said that trying again is of no use; a restart of the service tries once more."""
    STOPPED = "stopped"


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """The content of the file. Times are seconds since the epoch."""

    state: LinkState
    changed_at: float
    node_id: str = ""
    gateway_url: str = ""
    agent_version: str = __version__
    build: str = ""
    """Of the bundle that runs; empty outside of one."""
    pid: int = 0
    session_epoch: int = 0
    failures: int = 0
    next_attempt_at: float = 0.0
    last_error: str = ""
    quarantine: str = ""
    """Why the executor takes no jobs."""


class StatusFile:
    """Writes the file as a whole, so that a reader never sees half of it."""

    def __init__(self, path: Path | None) -> None:
        """None writes nothing (simulated agents)."""
        self._path = path
        self.last: LinkStatus | None = None

    def write(self, status: LinkStatus) -> None:
        self.last = status
        if self._path is None:
            return
        temporary = self._path.with_suffix(".new")
        try:
            temporary.write_bytes(msgspec.json.encode(status))
            # Readable for everybody: it holds no secret, and `wcp-agent status` need not be root.
            temporary.chmod(0o644)
            temporary.replace(self._path)
        except OSError:
            # Lost only as information; a full /run must not take the node offline.
            return


def read_status(path: Path) -> LinkStatus | None:
    """What the link last wrote; None when it never ran since boot or the file is not its own."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=LinkStatus)
    except (OSError, msgspec.MsgspecError):
        return None

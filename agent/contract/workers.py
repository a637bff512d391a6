"""Starting workers, as core sees it: real in agent.system, in memory in agent.simulator."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from shared.protocol.worker import WorkerOrder


class WorkerLauncher(Protocol):
    """Starts one worker for each verified grant."""

    async def launch(self, order: WorkerOrder) -> str:
        """Start a worker as the order's uid, in that account's slice; the path of the socket it listens on.

        Raises:
            UnavailableError: The host could not start it.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSide:
    """All that core needs for streams."""

    launcher: WorkerLauncher
    peer_uids: tuple[int, ...]
    """Who may connect to a worker: the agent's user."""
    grants_dir: Path | None = None
    """Where used grants are remembered; None: in memory only."""

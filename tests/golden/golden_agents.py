"""Agents of earlier releases, as they were: sources only, run with today's libraries."""

from __future__ import annotations

import tarfile
from pathlib import Path

from shared.protocol.capability import CAPABILITY_VERSION, OLDEST_CAPABILITY

FOLDER = Path(__file__).with_name("agents")
SERVED = tuple(range(OLDEST_CAPABILITY, CAPABILITY_VERSION))
"""Capabilities before this one that the controller still serves."""


def unpack_golden_agent(capability: int, target: Path) -> Path:
    """The folder to put on PYTHONPATH."""
    target.mkdir(parents=True, exist_ok=True)
    with tarfile.open(FOLDER / f"capability-{capability}.tar.gz") as archive:
        archive.extractall(target, filter="data")
    return target

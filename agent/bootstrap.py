"""The composition root of the root side: the real host, the modules and the executor. Only this file knows them all."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path
from typing import Final

from agent.contract.workers import WorkerSide
from agent.core.context import NodeContext
from agent.core.journal import Journal
from agent.core.registry import Registry
from agent.core.reserve import Room
from agent.core.server import (
    IDLE_SECONDS,
    STATE_DIR,
    ExecutorConfig,
    default_allowed_uids,
    find_agent_gid,
    serve_executor,
)
from agent.core.traffic import TrafficTerms
from agent.logs import configure_logging
from agent.modules.account.module import MODULE as ACCOUNT
from agent.modules.php.module import MODULE as PHP
from agent.modules.ssh.module import MODULE as SSH
from agent.modules.web.module import MODULE as WEB
from agent.system.host import RealHost
from shared.errors import FleetError
from shared.protocol.local import EXECUTOR_SOCKET

CHECKPOINTS: Final = "checkpoints"
GRANTS: Final = "grants"
_STATE_MODE: Final = 0o700

_log = logging.getLogger(__name__)


def build_registry() -> Registry:
    """Every module of this release."""
    return Registry((ACCOUNT, PHP, SSH, WEB))


def run_executor(arguments: argparse.Namespace) -> int:
    """`python3 -m agent executor`: serve the socket until there is nothing to do; returns the exit status.

    Options, all with a default: state_dir, socket, idle_seconds, and the flag clear_quarantine.
    """
    configure_logging(sys.stderr)
    state_dir = Path(getattr(arguments, "state_dir", None) or STATE_DIR)
    state_dir.mkdir(mode=_STATE_MODE, parents=True, exist_ok=True)
    try:
        if getattr(arguments, "clear_quarantine", False):
            return clear_quarantine(state_dir)
        return asyncio.run(_run(arguments, state_dir))
    except FleetError as error:
        _log.error("%s", error, exc_info=error)
        return 1


def clear_quarantine(state_dir: Path) -> int:
    """An operator has put the host right: take jobs again."""
    journal = Journal(state_dir)
    journal.clear_quarantine()
    journal.close()
    return 0


async def _run(arguments: argparse.Namespace, state_dir: Path) -> int:
    registry = build_registry()
    host = RealHost(state_dir / CHECKPOINTS, tuple(registry.config_trees.values()))
    journal = Journal(state_dir, Room(state_dir))
    if journal.database.set_aside is not None:
        _log.error("the journal was corrupt; it lies in %s and a new one was begun", journal.database.set_aside)
    await host.prune_checkpoints(journal.ledger.list_undo_records())
    config = ExecutorConfig(
        state_dir=state_dir,
        socket_path=Path(getattr(arguments, "socket", None) or EXECUTOR_SOCKET),
        allowed_uids=default_allowed_uids(),
        idle_seconds=float(getattr(arguments, "idle_seconds", None) or IDLE_SECONDS),
    )
    try:
        workers = WorkerSide(
            launcher=host.make_workers(find_agent_gid()),
            peer_uids=tuple(sorted(config.allowed_uids)),
            grants_dir=state_dir / GRANTS,
        )
        traffic = TrafficTerms(state_dir=state_dir)
        node = NodeContext(host=host, registry=registry, journal=journal, workers=workers, traffic=traffic)
        return await serve_executor(config, node)
    finally:
        await host.close()

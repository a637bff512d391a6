"""`python3 -m agent link`: the process behind wcp-agent.service."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Final

from agent.link.dial import Dialer
from agent.link.executor_client import UnixExecutorPort
from agent.link.health import read_unit_states
from agent.link.metrics import read_slices, sample_accounts, sample_node
from agent.link.processor import ProcessorMeter
from agent.link.renewal import Renewer
from agent.link.service import LinkParts, LinkService, read_machine_identity
from agent.link.settings import NodePaths, read_agent_settings
from agent.link.spool import Spool
from agent.link.status_file import StatusFile
from agent.link.updates import Updates
from agent.link.watchdog import Pulse, ServiceNotifier, feed_watchdog
from agent.link.witness import Witness
from agent.logs import configure_logging
from shared.errors import FleetError

EXIT_NOT_CONFIGURED: Final = 78
"""Source: sysexits.h EX_CONFIG; wcp-agent.service does not restart on it."""
CGROUP_ROOT: Final = Path("/sys/fs/cgroup")

_log = logging.getLogger(__name__)


def run_link(_arguments: argparse.Namespace) -> int:
    """Run the link until a signal ends it; returns the exit code."""
    configure_logging(sys.stderr)
    try:
        asyncio.run(_run(NodePaths()))
    except FleetError as error:
        _log.error("%s%s", error, f" ({error.hint})" if error.hint else "")  # the sentence is the point
        return EXIT_NOT_CONFIGURED
    return 0


def open_spool(path: Path) -> Spool:
    """Open the spool; a damaged file is put aside, so that a bad block does not keep the node offline for ever."""
    try:
        return Spool(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise  # locked, disk full, read-only: the file itself is not to blame
        aside = path.with_suffix(".damaged")
        _log.error("the spool is damaged (%s); it is kept as %s and a new one begins", error, aside)
        path.replace(aside)
        for leftover in ("-wal", "-shm"):
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        return Spool(path)


async def _run(paths: NodePaths) -> None:
    notifier = ServiceNotifier.from_environment()
    pulse = Pulse()
    spool = open_spool(paths.spool_db)
    settings = read_agent_settings(paths)
    machine = read_machine_identity(paths.machine_id)
    processor = ProcessorMeter(paths.processor_json, lambda: read_slices(CGROUP_ROOT, machine.boot_id))
    parts = LinkParts(
        dialer=Dialer(settings, paths),
        renewer=Renewer(settings, paths),
        executor=UnixExecutorPort(),
        spool=spool,
        machine=machine,
        sample=lambda: sample_node(paths) | sample_accounts(CGROUP_ROOT) | processor.gauges(),
        processor=processor,
        status_file=StatusFile(paths.status_json),
        notifier=notifier,
        pulse=pulse,
        unit_states=read_unit_states,
        updates=Updates(settings, paths),
        witness=Witness(paths, settings.node_id),
    )
    tasks = [
        asyncio.create_task(LinkService(parts).run(), name="link"),
        asyncio.create_task(feed_watchdog(notifier, pulse), name="watchdog"),
    ]
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, tasks[0].cancel)
    notifier.ready()
    try:
        await tasks[0]
    except asyncio.CancelledError:
        notifier.stopping()
    finally:
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        spool.close()

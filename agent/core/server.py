"""The executor behind its unix socket: who may speak, one frame after the other, and rest when nobody does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any, Final

import msgspec

from agent.core import sdnotify
from agent.core.connection import Connection
from agent.core.context import NodeContext
from agent.core.database import JournalBrokenError
from agent.core.executor import Executor
from agent.core.identity import TrustStore, load_identity
from shared.errors import FleetError
from shared.protocol.local import EXECUTOR_SOCKET

AGENT_USER: Final = "wcp-agent"
STATE_DIR: Final = Path("/var/lib/wcp360-executor")
IDLE_SECONDS: Final = 30.0
STOP_SECONDS: Final = 60.0
"""How long running jobs may go on after SIGTERM; what is not done then is undone at the next start."""
MAX_CONNECTIONS: Final = 8
SOCKET_MODE: Final = 0o660
_PEER_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid. Source: unix(7), SO_PEERCRED."""

# From Python 3.13 on asyncio removes the socket's path when the server closes; but systemd goes on listening there.
_KEEP_PATH: Final[dict[str, Any]] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

_log = logging.getLogger(__name__)


class ExecutorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How one executor process is set up."""

    state_dir: Path = STATE_DIR
    socket_path: Path = Path(EXECUTOR_SOCKET)
    """Where to listen when systemd passes no socket."""
    allowed_uids: frozenset[int]
    """Whose connections are served."""
    idle_seconds: float = IDLE_SECONDS
    """After how long without a connection and without work the process ends."""


def default_allowed_uids() -> frozenset[int]:
    """Root, ourselves, and the agent's user where it exists."""
    uids = {0, os.geteuid()}
    with contextlib.suppress(KeyError):
        uids.add(pwd.getpwnam(AGENT_USER).pw_uid)
    return frozenset(uids)


def find_agent_gid() -> int:
    """The group of the agent's user; our own where there is no such user."""
    try:
        return pwd.getpwnam(AGENT_USER).pw_gid
    except KeyError:
        return os.getegid()


def build_executor(node: NodeContext, state_dir: Path) -> Executor:
    """An executor with the identity and the trust that lie in its state folder.

    Raises:
        FactError: identity.json is there and makes no sense.
    """
    identity = load_identity(state_dir)
    root_keys = {} if identity is None else identity.public_root_keys()
    return Executor(node, identity=identity, trust=TrustStore(state_dir, root_keys))


async def serve_executor(config: ExecutorConfig, node: NodeContext) -> int:
    """Recover, serve, and return the exit status once there is nothing left to do."""
    sdnotify.notify("READY=1")
    executor = build_executor(node, config.state_dir)
    stop = asyncio.Event()
    broken: list[FleetError] = []

    def end_broken(error: FleetError) -> None:
        broken.append(error)
        stop.set()

    executor.on_broken = end_broken
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    alive = asyncio.create_task(_keep_alive())
    try:
        await executor.start()
        listening = sdnotify.take_passed_socket() or listen_at(config.socket_path)
        await ExecutorServer(executor, config).serve(listening, stop)
        sdnotify.notify("STOPPING=1")
        await executor.stop(grace_seconds=0.0 if broken else STOP_SECONDS)
    except JournalBrokenError as error:
        _log.exception("the journal makes no sense; it is set aside")
        broken.append(error)
        node.journal.database.declare_broken()
    finally:
        alive.cancel()
        node.journal.close()
    # Not 0: systemd starts the next one at once, and that one checks the journal and recovers.
    return 1 if broken else 0


def listen_at(path: Path) -> socket.socket:
    """A listening socket at a path; a stale one that an earlier process left is replaced."""
    path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(str(path))
    path.chmod(SOCKET_MODE)
    listening.listen(MAX_CONNECTIONS)
    return listening


async def _keep_alive() -> None:
    """Tell systemd's watchdog that the loop turns."""
    period = sdnotify.watchdog_seconds()
    while period is not None:
        sdnotify.notify("WATCHDOG=1")
        await asyncio.sleep(period / 2)


class ExecutorServer:
    """Accepts connections until it is told to stop or has nothing to do."""

    def __init__(self, executor: Executor, config: ExecutorConfig) -> None:
        self._executor = executor
        self._config = config
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listening: socket.socket, stop: asyncio.Event) -> None:
        """Serve until `stop`, or until nobody was connected and nothing ran for `idle_seconds`."""
        server = await asyncio.start_unix_server(self._accept, sock=listening, **_KEEP_PATH)
        async with server:
            await self._wait_for_end(stop)
            server.close()
            for task in tuple(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _wait_for_end(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        idle_since = loop.time()
        step = min(1.0, self._config.idle_seconds)
        while loop.time() - idle_since < self._config.idle_seconds:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(step):
                    await stop.wait()
                return
            if self._connections or not self._executor.is_idle:
                idle_since = loop.time()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            connection = Connection(self._executor, reader, writer)
            uid = read_peer_uid(writer)
            if uid in self._config.allowed_uids:
                await connection.serve()
            else:
                _log.warning("refused a connection of uid %d", uid)
                await connection.complain("wrong_peer", "only the agent may speak to the executor")
        except (OSError, FleetError, asyncio.CancelledError) as error:
            _log.debug("a connection ended: %r", error)
        finally:
            self._connections.discard(task)
            writer.close()


def read_peer_uid(writer: asyncio.StreamWriter) -> int:
    """The user at the other end, as the kernel says."""
    peer: socket.socket = writer.get_extra_info("socket")
    raw = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER_CREDENTIALS.size)
    uid: int = _PEER_CREDENTIALS.unpack(raw)[1]
    return uid

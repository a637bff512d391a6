"""Workers in units of their own: as the tenant's user, in the tenant's slice, with nothing but a file system to read.

systemd starts them, so the executor needs no right to become somebody else; it hands over the orders and a listening
socket, and whoever stops the tenant's slice stops them, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import Final

import msgspec
from dbus_fast import Variant

from agent.system.slices import slice_name
from agent.system.systemd import Systemd
from shared.errors import UnavailableError
from shared.protocol.worker import WORKER_SOCKETS, WorkerOrder

START_SECONDS: Final = 30.0
LIFETIME_SECONDS: Final = 6 * 3600
"""A stream that lasts longer is opened again by whoever still wants it."""
MEMORY_BYTES: Final = 64 * 1024 * 1024
STALE_SECONDS: Final = 120.0
"""A worker waits for its agent for less; the socket file of a later moment leads nowhere."""
_SOCKET_MODE: Final = 0o660
_FOLDER_MODE: Final = 0o750


class TransientWorkers:
    """WorkerLauncher on a real node.

    Args:
        systemd: Starts the units.
        agent_gid: Group of the agent: it alone may enter the folder of the sockets.
        folder: Of the sockets; empty after a boot.
    """

    def __init__(self, systemd: Systemd, *, agent_gid: int, folder: Path = Path(WORKER_SOCKETS)) -> None:
        self._systemd = systemd
        self._agent_gid = agent_gid
        self._folder = folder

    async def launch(self, order: WorkerOrder) -> str:
        """See WorkerLauncher.launch.

        Changes: a transient unit wcp360-worker-UID-*.service and a socket below /run/wcp360/streams.
        """
        name = f"{order.uid}-{secrets.token_hex(8)}"
        path = self._folder / f"{name}.sock"
        try:
            listening = await asyncio.to_thread(self._listen, path)
        except OSError as error:
            raise UnavailableError(f"a worker's socket cannot be made: {error}", code="host_error") from error
        try:
            await self._start(f"wcp360-worker-{name}.service", order, listening.fileno())
        except UnavailableError:
            path.unlink(missing_ok=True)
            raise
        finally:
            listening.close()
        return str(path)

    def _listen(self, path: Path) -> socket.socket:
        self._folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        os.chown(self._folder, 0, self._agent_gid)
        self._folder.chmod(_FOLDER_MODE)
        for leftover in self._folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                if leftover.stat().st_mtime < time.time() - STALE_SECONDS:
                    leftover.unlink()
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listening.bind(str(path))
        os.chown(path, 0, self._agent_gid)
        path.chmod(_SOCKET_MODE)
        listening.listen(1)
        return listening

    async def _start(self, unit: str, order: WorkerOrder, descriptor: int) -> None:
        properties = worker_properties(order)
        rows = [[key, value] for key, value in properties.items()]
        # The number is the place in the message's list of descriptors. Source: D-Bus Specification, type UNIX_FD.
        rows.append(["StandardOutputFileDescriptor", Variant("h", 0)])
        result = await self._systemd.bus.run_job(
            "StartTransientUnit",
            "ssa(sv)a(sa(sv))",
            [unit, "fail", rows, []],
            timeout_seconds=START_SECONDS,
            descriptors=(descriptor,),
        )
        if result != "done":
            await self._systemd.reset_failed(unit)
            raise UnavailableError(
                f"the account's worker did not start: {result}",
                code="worker_failed",
                hint="Is the account at its limit of processes or memory? journalctl -u 'wcp360-worker-*' on the node.",
            )


def worker_properties(order: WorkerOrder) -> dict[str, Variant]:
    """The unit of one worker."""
    argv = [sys.executable, "-P", "-m", "agent", "worker"]
    environment = [f"PYTHONPATH={_program_dir()}", "PYTHONDONTWRITEBYTECODE=1", "LANG=C.UTF-8", "MALLOC_ARENA_MAX=1"]
    on = Variant("b", True)  # noqa: FBT003 - a D-Bus value
    return {
        "Description": Variant("s", f"WCP360: {order.kind} of {order.account}"),
        "Type": Variant("s", "exec"),
        "User": Variant("s", str(order.uid)),
        "Slice": Variant("s", slice_name(order.uid)),
        "ExecStart": Variant("a(sasb)", [[argv[0], argv, False]]),
        "Environment": Variant("as", environment),
        "WorkingDirectory": Variant("s", "/"),
        # Orders on standard input and not in argv: a process list is readable by every tenant.
        "StandardInputData": Variant("ay", msgspec.msgpack.encode(order)),
        "StandardError": Variant("s", "journal"),
        "CollectMode": Variant("s", "inactive-or-failed"),
        "RuntimeMaxUSec": Variant("t", LIFETIME_SECONDS * 1_000_000),
        "MemoryMax": Variant("t", MEMORY_BYTES),
        "TasksMax": Variant("t", 4),
        "LimitNOFILE": Variant("t", 64),
        "UMask": Variant("u", 0o077),
        "NoNewPrivileges": on,
        "CapabilityBoundingSet": Variant("t", 0),
        "PrivateNetwork": on,
        "PrivateTmp": on,
        "PrivateDevices": on,
        "ProtectSystem": Variant("s", "strict"),
        "ProtectHome": Variant("s", "tmpfs"),
        "ProtectProc": Variant("s", "invisible"),
        "RestrictAddressFamilies": Variant("(bas)", [True, ["AF_UNIX"]]),
        "RestrictNamespaces": Variant("t", 0),
        "SystemCallFilter": Variant("(bas)", [True, ["@system-service"]]),
        "SystemCallArchitectures": Variant("as", ["native"]),
    }


def _program_dir() -> Path:
    """Where this very code is: a worker is of the same version as its executor."""
    return Path(__file__).resolve().parents[2]

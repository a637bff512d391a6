"""When a reload is over for visitors: once no worker with the old configuration takes a request any more.

nginx answers a reload before that: for a moment the old workers and the new ones accept from the same sockets, and a
site that has just been published can still be answered with "no such site".
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Final

WAIT_SECONDS: Final = 5.0
_POLL_SECONDS: Final = 0.005

OLD_WORKER: Final = b"nginx: worker process\0"
"""Title of a worker that accepts; one that is about to end says "worker process is shutting down" and has closed its
sockets. Source: ngx_worker_process_cycle, src/os/unix/ngx_process_cycle.c."""


def list_accepting_workers(main_pid: int, proc: Path = Path("/proc")) -> frozenset[int]:
    """Children of the process that are nginx workers and accept; none for any other service."""
    try:
        children = (proc / str(main_pid) / "task" / str(main_pid) / "children").read_text(encoding="ascii").split()
    except OSError:
        return frozenset()
    return frozenset(int(pid) for pid in children if _is_accepting(proc / pid))


def _is_accepting(process: Path) -> bool:
    try:
        # The title is padded with NUL to the length of what stood there before. Source: ngx_setproctitle.c.
        return (process / "cmdline").read_bytes().rstrip(b"\0") + b"\0" == OLD_WORKER
    except OSError:
        return False


async def wait_for_handover(main_pid: int, old_workers: frozenset[int], *, proc: Path = Path("/proc")) -> None:
    """Return when no old worker accepts, or after WAIT_SECONDS: a reload that hangs is verification's to judge."""
    deadline = time.monotonic() + WAIT_SECONDS
    while old_workers & list_accepting_workers(main_pid, proc) and time.monotonic() < deadline:  # noqa: ASYNC110 - /proc has no events
        await asyncio.sleep(_POLL_SECONDS)

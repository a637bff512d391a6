"""A process that has imported and compiled everything, and forks: a controller is up at once, and as real as any.

Requests and answers are lines of JSON on its standard input and output. Its children die with it.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import os
import signal
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import controller.serve  # noqa: F401 - imported here once instead of in every child
from controller.__main__ import main as run_controller
from controller.bootstrap import build_controller
from controller.settings import Settings
from tests.faults.node_process import main as run_node

_PR_SET_PDEATHSIG = 1
"""Source: prctl(2)."""


def compile_routes() -> None:
    """Half a second that every child would spend; what was compiled belongs to no controller, and the folder goes."""
    with tempfile.TemporaryDirectory(prefix="wcp-zygote-") as folder:
        build_controller(Settings(data_dir=Path(folder)))


def serve() -> None:
    compile_routes()
    gc.collect()
    gc.freeze()  # or every child's first collection walks through all of this, and copies its pages
    for line in sys.stdin:
        request = json.loads(line)
        answer = start(request) if "start" in request else poll(request["poll"])
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def start(request: dict[str, Any]) -> dict[str, int]:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return {"pid": pid}
    status = 99
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        redirect(request["log"])
        signal.signal(signal.SIGUSR1, show_tasks)
        os.environ.update(request["env"])
        status = run(request["start"], request["arguments"])
    except SystemExit as error:
        status = int(error.code or 0)
    except BaseException:  # noqa: BLE001 - a child's last words belong into its log
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def show_tasks(_number: int, _frame: object) -> None:
    """Say in the log what everything waits for: SIGUSR1 to a process that hangs in a test."""
    for task in asyncio.all_tasks(asyncio.get_running_loop()):
        task.print_stack(file=sys.stderr)
    sys.stderr.flush()


def redirect(log: str) -> None:
    """Nothing of the zygote's own pipes stays with a child."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)


def run(program: str, arguments: list[str]) -> int:
    if program == "controller":
        return run_controller(arguments)
    return run_node(arguments)


def poll(pid: int) -> dict[str, int | None]:
    """Exit status of a child, None while it runs; as subprocess.Popen.returncode."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return {"status": -signal.SIGKILL}
    return {"status": None if found == 0 else os.waitstatus_to_exitcode(status)}


if __name__ == "__main__":
    serve()

"""What `make run` does: a controller, two nodes and a site on this machine, step by step, resumable.

Usage: quickstart.py up [--detach] | stop | clean | status
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "lab"))

from hosting import ensure_site, fetch_site, wait_for_nodes
from nodes import Nodes, SimulatedNodes, choose_nodes
from process import RUN_NAME, ControllerProcess
from say import QuickstartError, failed, say, step
from summary import print_summary, write_summary

RUN_DIR = Path(__file__).resolve().parent.parent.parent / f".{RUN_NAME}"


def main(argv: list[str]) -> int:
    """Run one verb; exit status 1 with one clear sentence when it cannot be done."""
    parser = argparse.ArgumentParser(prog="quickstart.py", description=__doc__)
    parser.add_argument("verb", choices=["up", "stop", "clean", "status"])
    parser.add_argument("--detach", action="store_true", help="return once it is ready")
    arguments = parser.parse_args(argv)
    verbs = {"up": lambda: up(is_detached=arguments.detach), "stop": stop, "clean": clean, "status": status}
    try:
        return verbs[arguments.verb]()
    except QuickstartError as error:
        failed(error)
        return 1


def up(*, is_detached: bool) -> int:
    """Bring everything up, or find it up; then stay with the log unless detached."""
    began = time.monotonic()
    # A service manager or CI ends us with TERM: then, too, nothing stays behind.
    signal.signal(signal.SIGTERM, _raise_interrupt)
    nodes = choose_nodes(RUN_DIR)
    controller = ControllerProcess(RUN_DIR, settings={"WCP360_PUBLIC_NAMES": nodes.controller_name})
    try:
        _bring_up(controller, nodes, began)
        if is_detached:
            return 0
        say("\nReading along with the controller's log. Ctrl-C ends everything; `make run` resumes it.\n")
        controller.follow_log()
    except KeyboardInterrupt:
        say("")
    except BaseException:
        stop()
        raise
    stop()
    # Detached, it was interrupted before it was ready.
    return 1 if is_detached else 0


def _bring_up(controller: ControllerProcess, nodes: Nodes, began: float) -> None:
    nodes.prepare()
    with step("starting the controller on SQLite"):
        controller.start()
    nodes.boot()
    api = controller.sign_in()
    nodes.enrol(api)
    with step("waiting until the nodes are connected and have their modules"):
        found = wait_for_nodes(api, nodes.names)
    site = ensure_site(api, found, nodes)
    answer = fetch_site(site, nodes)
    summary = write_summary(RUN_DIR, controller, found, site, answer)
    print_summary(summary, seconds=time.monotonic() - began)


def stop() -> int:
    """End what runs; keep the data."""
    nodes = choose_nodes(RUN_DIR, is_quiet=True)
    with step("stopping the nodes and the controller"):
        nodes.stop()
        # Simulated ones may run although real ones could: WCP360_SIMULATE was for the `up` only.
        SimulatedNodes(RUN_DIR).stop()
        ControllerProcess(RUN_DIR).stop()
    return 0


def clean() -> int:
    """End what runs and remove all its data."""
    nodes = choose_nodes(RUN_DIR, is_quiet=True)
    with step("removing the nodes and the controller"):
        nodes.remove()
        SimulatedNodes(RUN_DIR).stop()
        ControllerProcess(RUN_DIR).stop()
        shutil.rmtree(RUN_DIR, ignore_errors=True)
    return 0


def status() -> int:
    """Say whether it runs; exit status 0 when it does."""
    is_running = ControllerProcess(RUN_DIR).find_pid() is not None
    say("running" if is_running else "not running")
    return 0 if is_running else 1


def _raise_interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Where the sites will live: two real Debian nodes, or simulated ones where none can be booted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from api import Api
from process import ROOT, _is_zombie, _start_time
from say import QuickstartError, say, step
from wcplab.check import require_machine
from wcplab.errors import LabError
from wcplab.lab import Lab

LAB = "run"
NODE_COUNT = 2
INSTALL_TIMEOUT_SECONDS = 300.0


class Nodes(Protocol):
    """What the quickstart needs of its nodes."""

    names: list[str]
    is_real: bool

    def prepare(self) -> None:
        """Everything that takes long the first time."""

    def boot(self) -> None:
        """Bring them up."""

    def enrol(self, api: Api) -> None:
        """Make them nodes of the controller; nothing for those that are."""

    def stop(self) -> None:
        """End them, keep their disks."""

    def remove(self) -> None:
        """Leave nothing of them."""


def choose_nodes(run_dir: Path, *, is_quiet: bool = False) -> Nodes:
    """Real nodes if this machine can boot them, else simulated ones, saying why."""
    if os.environ.get("WCP360_SIMULATE") != "1":
        try:
            require_machine()
            return RealNodes(run_dir)
        except LabError as error:
            reason = error.message
    else:
        reason = "WCP360_SIMULATE=1"
    if not is_quiet:
        say(f"No real nodes on this machine ({reason}): running with simulated ones.")
    return SimulatedNodes(run_dir)


def build_bundle(run_dir: Path) -> None:
    """Make the agent bundle that the controller serves to its nodes."""
    builder = ROOT / "packaging" / "bundle" / "build_bundle.py"
    argv = [sys.executable, str(builder), "--out", str(run_dir / "bundles")]
    completed = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    if completed.returncode != 0:
        raise QuickstartError("the agent bundle could not be built", hint=completed.stderr[-2000:])


class RealNodes:
    """Debian nodes in the lab named `run`."""

    is_real = True

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lab = Lab(LAB, progress=lambda line: say(f"  {line}"))
        self.names = [f"{LAB}-{number}" for number in range(1, NODE_COUNT + 1)]

    def prepare(self) -> None:
        self._run_dir.mkdir(mode=0o700, exist_ok=True)
        with step("building the agent bundle (kept for the next time)"):
            build_bundle(self._run_dir)

    def boot(self) -> None:
        with step(f"booting {NODE_COUNT} Debian nodes (the first time their image is built, which takes some minutes)"):
            try:
                self._lab.up(nodes=NODE_COUNT, suites=["bookworm"])
            except LabError as error:
                raise QuickstartError(error.message, hint=error.hint) from error

    def enrol(self, api: Api) -> None:
        known = {node["name"] for node in api.call("GET", "/nodes?limit=200")["items"] if node["state"] == "active"}
        missing = [name for name in self.names if name not in known]
        if not missing:
            return
        with step("enrolling the nodes, each with the line an administrator would paste"), ThreadPoolExecutor() as pool:
            list(pool.map(lambda name: self._enrol_one(api, name), missing))

    def _enrol_one(self, api: Api, name: str) -> None:
        command = api.call("POST", "/enrolment-tokens", {"name": name, "approval": "auto"})["command"]
        # The very line, in a shell of the node, as a person would: this is the one place that needs a shell.
        result = self._lab.node(name).run(["/bin/sh", "-c", command], timeout_seconds=INSTALL_TIMEOUT_SECONDS)
        if result.exit_code != 0:
            raise QuickstartError(f"{name} could not be enrolled", hint=(result.stdout + result.stderr)[-3000:])
        say(f"  {name}: {result.stdout.strip().splitlines()[-1] if result.stdout.strip() else 'enrolled'}")

    def address(self, name: str) -> str:
        """IP address of a node on the lab's bridge."""
        return self._lab.node(name).address

    def write_page(self, name: str, account: str, path: str, content: str) -> None:
        """Put a file where a tenant would, as the tenant."""
        node = self._lab.node(name)
        argv = ["/usr/sbin/runuser", "-u", account, "--", "/usr/bin/tee", path]
        result = node.run(argv, timeout_seconds=10.0, stdin=content.encode())
        if result.exit_code != 0:
            raise QuickstartError(f"{path} could not be written on {name}", hint=result.stderr)

    def stop(self) -> None:
        if self._lab.definition:
            self._lab.stop()

    def remove(self) -> None:
        self._lab.down()


class SimulatedNodes:
    """The real link and executor over a host in memory, in one process."""

    is_real = False

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._pid_path = run_dir / "simulator.pid"
        self.names = [f"sim-{number}" for number in range(1, NODE_COUNT + 1)]

    def prepare(self) -> None:
        self._run_dir.mkdir(mode=0o700, exist_ok=True)

    def boot(self) -> None:
        """Nothing: they come up when they enrol."""

    def enrol(self, api: Api) -> None:
        if self._find_pid() is not None:
            return
        tokens = [
            api.call("POST", "/enrolment-tokens", {"name": name, "approval": "auto"})["token"] for name in self.names
        ]
        with step("starting simulated nodes"), (self._run_dir / "simulator.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "agent", "simulate", "--state-dir", str(self._run_dir / "simulated"),
                 "--controller", f"https://127.0.0.1:{os.environ.get('WCP360_API_PORT', '8360')}",
                 "--names", ",".join(self.names)],
                cwd=ROOT, env={**os.environ, "WCP360_TOKENS": ",".join(tokens)}, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            self._pid_path.write_text(f"{process.pid} {_start_time(process.pid)}")

    def _find_pid(self) -> int | None:
        try:
            pid_text, _, started = self._pid_path.read_text().partition(" ")
        except FileNotFoundError:
            return None
        return int(pid_text) if _start_time(int(pid_text)) == started else None

    def stop(self) -> None:
        pid = self._find_pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            while self._find_pid() is not None and not _is_zombie(pid):
                time.sleep(0.1)
        self._pid_path.unlink(missing_ok=True)

    def remove(self) -> None:
        self.stop()


def describe(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the summary says about each node."""
    return [
        {"name": node["name"], "id": node["id"], "state": node["state"], "is_connected": node["is_connected"]}
        for node in nodes
    ]

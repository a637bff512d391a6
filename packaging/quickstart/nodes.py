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
from process import ROOT, RUN_NAME, is_zombie, read_start_time
from say import QuickstartError, say, step
from wcplab.check import require_machine
from wcplab.errors import LabError
from wcplab.lab import Lab
from wcplab.state import lab_directory

LAB = RUN_NAME
NODE_COUNT = 2
INSTALL_TIMEOUT_SECONDS = 300.0
ENROL_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 30.0


class Nodes(Protocol):
    """What the quickstart needs of its nodes."""

    names: list[str]
    is_real: bool
    controller_name: str
    """How they call the machine that the controller is on."""

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
    controller_name = "controller"

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._lab = Lab(LAB, progress=lambda line: say(f"  {line}"))
        self.names = [f"{LAB}-{number}" for number in range(1, NODE_COUNT + 1)]

    def prepare(self) -> None:
        self._require_ours()
        self._run_dir.mkdir(mode=0o700, exist_ok=True)
        with step("building the agent bundle (kept for the next time)"):
            build_bundle(self._run_dir)

    def boot(self) -> None:
        with step(f"booting {NODE_COUNT} Debian nodes (the first time their image is built, which takes some minutes)"):
            try:
                self._lab.up(nodes=NODE_COUNT, suites=["bookworm"])
                self._owner_path.write_text(f"{self._run_dir}\n")
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
        say(f"  {name}: enrolled")

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
        if self._lab.definition and self._find_other_owner() is None:
            self._lab.stop()

    def remove(self) -> None:
        if self._find_other_owner() is None:
            self._lab.down()

    @property
    def _owner_path(self) -> Path:
        """Says in which clone they were made: nodes are the machine's, and know one controller."""
        return lab_directory(LAB) / "owner"

    def _find_other_owner(self) -> Path | None:
        """The folder of the other clone that the nodes are of; None: ours, nobody's, or there are none."""
        if not self._lab.definition or not self._owner_path.exists():
            return None
        owner = Path(self._owner_path.read_text().strip())
        # A clone that is gone cannot want its nodes back, nor end them.
        return owner if owner != self._run_dir and owner.exists() else None

    def _require_ours(self) -> None:
        owner = self._find_other_owner()
        if owner is not None:
            name = "" if LAB == "run" else f"WCP360_RUN_NAME={LAB} "
            raise QuickstartError(
                f"the nodes {', '.join(self.names)} are those of another clone, {owner.parent}",
                hint=f"Remove them there: {name}make -C {owner.parent} clean\n"
                "Or run beside them: WCP360_RUN_NAME=second WCP360_API_PORT=8361 WCP360_GATEWAY_PORT=8444 make run",
            )
        if self._lab.definition and self._owner_path.exists() and not (self._run_dir / "data").exists():
            with step("removing nodes whose controller is gone"):
                self._lab.down()


class SimulatedNodes:
    """The real link and executor over a host in memory, in one process."""

    is_real = False
    controller_name = "127.0.0.1"

    def __init__(self, run_dir: Path) -> None:
        self._run_dir = run_dir
        self._pid_path = run_dir / "simulator.pid"
        self._log_path = run_dir / "simulator.log"
        self.names = [f"sim-{number}" for number in range(1, NODE_COUNT + 1)]

    def prepare(self) -> None:
        self._run_dir.mkdir(mode=0o700, exist_ok=True)

    def boot(self) -> None:
        """Nothing: they come up when they enrol."""

    def enrol(self, api: Api) -> None:
        if self._find_pid() is not None:
            return
        with step("starting simulated nodes"):
            process = self._start(api)
            self._wait_enrolled(process)

    def _start(self, api: Api) -> subprocess.Popen[bytes]:
        """Start them; those that have their keys already need no token, which is an empty word then."""
        known = {node["name"] for node in api.call("GET", "/nodes?limit=200")["items"] if node["state"] == "active"}
        tokens = ["" if name in known else self._make_token(api, name) for name in self.names]
        argv = [
            *(sys.executable, "-m", "agent", "simulate", "--controller", f"https://127.0.0.1:{_api_port()}"),
            *("--names", ",".join(self.names), "--state-dir", str(self._run_dir / "simulated")),
        ]
        # The tokens are secrets: other users of this machine see arguments, but not our environment.
        environment = {**os.environ, "WCP360_TOKENS": ",".join(tokens)}
        with self._log_path.open("wb") as log:
            process = subprocess.Popen(
                argv,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._pid_path.write_text(f"{process.pid} {read_start_time(process.pid)}")
        return process

    def _make_token(self, api: Api, name: str) -> str:
        token: str = api.call("POST", "/enrolment-tokens", {"name": name, "approval": "auto"})["token"]
        return token

    def _wait_enrolled(self, process: subprocess.Popen[bytes]) -> None:
        """Until the process says that every node is enrolled.

        Raises:
            QuickstartError: It ended, or says nothing; with the end of its log.
        """
        deadline = time.monotonic() + ENROL_TIMEOUT_SECONDS
        while "agents are enrolled" not in (said := self._log_path.read_text(errors="replace")):
            if process.poll() is not None or time.monotonic() > deadline:
                raise QuickstartError("the simulated nodes could not be enrolled", hint=said[-2000:])
            time.sleep(0.1)

    def _find_pid(self) -> int | None:
        try:
            pid_text, _, started = self._pid_path.read_text().partition(" ")
        except FileNotFoundError:
            return None
        pid = int(pid_text)
        return pid if read_start_time(pid) == started and not is_zombie(pid) else None

    def stop(self) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        pid = self._find_pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
        while pid is not None and self._find_pid() is not None:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        self._pid_path.unlink(missing_ok=True)

    def remove(self) -> None:
        self.stop()


def _api_port() -> str:
    return os.environ.get("WCP360_API_PORT", "8360")


def describe(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the summary says about each node."""
    return [
        {"name": node["name"], "id": node["id"], "state": node["state"], "is_connected": node["is_connected"]}
        for node in nodes
    ]

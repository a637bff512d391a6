"""A bare Debian that becomes a controller with the install script, as an administrator would do it without a network."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from api import Api
from wcplab import Completed, Lab, Node

from tests.e2e.fleet import INSTALL_TIMEOUT_SECONDS, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
CACHE = Path("/var/cache/wcp360-wheels")
SOURCES = "/root/wcp360"
WHEELS = "/root/wheels"
INSTALL = f"{SOURCES}/packaging/controller/install"
DATA = "/var/lib/wcp360"
_PARTS = ("agent", "cli", "controller", "shared", "packaging")
_FILES = ("pyproject.toml", "README.md", "LICENSE")
_LOCKS = (
    "packaging/controller/download-wheels", "packaging/controller/requirements.lock",
    "packaging/controller/requirements-build.lock", "packaging/bundle/requirements-agent.lock",
)  # fmt: skip


def ensure_wheels() -> Path:
    """What `download-wheels` fetches for Debian 12; kept under the hash of the locks, outside the checkout."""
    key = hashlib.sha256(b"".join((REPOSITORY / name).read_bytes() for name in _LOCKS)).hexdigest()[:24]
    target = CACHE / key
    if not target.is_dir():
        CACHE.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".new-", dir=CACHE))
        argv = [str(REPOSITORY / "packaging/controller/download-wheels"), str(staging), "3.11"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        try:
            staging.rename(target)
        except OSError:
            assert target.is_dir()  # another run was quicker, with the same content
            shutil.rmtree(staging)
    return target


@dataclass
class ControllerNode:
    """A node of a lab that is no node of a fleet but its controller."""

    lab: Lab
    node: Node
    folder: Path
    """Of this machine: for the authority's certificate."""

    def push_release(self) -> None:
        """The checkout as it would be unpacked, and the wheels, since there is no network."""
        unpacked = self.folder / "wcp360"
        unpacked.mkdir()
        for part in _PARTS:
            shutil.copytree(REPOSITORY / part, unpacked / part, ignore=shutil.ignore_patterns("__pycache__"))
        for name in _FILES:
            shutil.copy2(REPOSITORY / name, unpacked / name)
        self.node.push(unpacked, SOURCES)
        self.node.push(ensure_wheels(), WHEELS)

    def run(self, *argv: str, timeout_seconds: float = 60.0) -> str:
        """The output of a command that succeeds, as root on the node."""
        return self.node.run(list(argv), timeout_seconds=timeout_seconds).check().stdout

    def shell(self, script: str, *, timeout_seconds: float = INSTALL_TIMEOUT_SECONDS) -> str:
        """What the documentation prints as commands; each must succeed."""
        return self.run("/bin/sh", "-euc", script, timeout_seconds=timeout_seconds)

    def install(self, *arguments: str) -> Completed:
        """Run the script with the wheels that were brought along."""
        argv = [INSTALL, "--wheels", WHEELS, *arguments]
        return self.node.run(argv, timeout_seconds=INSTALL_TIMEOUT_SECONDS)

    def show(self, unit: str, name: str) -> str:
        return self.run("/usr/bin/systemctl", "show", "-P", name, unit).strip()

    def is_active(self, unit: str) -> bool:
        return self.show(unit, "ActiveState") == "active"

    def pid(self, unit: str) -> int:
        return int(self.show(unit, "MainPID"))

    def kill_unit(self, unit: str) -> None:
        """SIGKILL to its process, and wait until systemd has it serving again as another one."""
        before = self.pid(unit)
        assert before != 0
        self.run("/bin/kill", "-9", str(before))
        wait_until(
            lambda: self.pid(unit) not in (0, before) and self.is_active(unit),
            timeout_seconds=60,
            what=f"{unit} is back",
        )

    def journal(self, units: Sequence[str]) -> str:
        """The end of what they wrote, for a test that fails."""
        argv = ["/usr/bin/journalctl", "--no-pager", "-n", "60", *(f"--unit={unit}" for unit in units)]
        return self.run(*argv)

    def sign_in(self, *, authority: str = f"{DATA}/pki/ca.pem", port: int = 8360) -> Api:
        """As the first administrator, from this machine, believing nothing but the controller's own authority."""
        ca_file = self.folder / "ca.pem"
        ca_file.write_text(self.node.read_text(authority))
        api = Api(f"https://{self.node.address}:{port}", ca_file)
        own = self.folder / "admin.json"
        issued = {} if own.exists() else json.loads(self.node.read_text(f"{DATA}/first-admin.json"))
        api.sign_in_first(issued, own)
        return api

    def forget_admin(self) -> None:
        """On another database there is another first administrator, with a one-time password."""
        (self.folder / "admin.json").unlink(missing_ok=True)

    def enrol(self, api: Api, name: str) -> dict[str, Any]:
        """Paste the one line in another node of the lab; the node, connected."""
        # The role decides which modules follow; this one brings no packages.
        body = {"name": name, "approval": "auto", "roles": ["backup"]}
        command: str = api.call("POST", "/enrolment-tokens", body)["command"]
        done = self.lab.node(name).run(["/bin/sh", "-c", command], timeout_seconds=INSTALL_TIMEOUT_SECONDS)
        assert done.exit_code == 0, done.stdout + done.stderr

        def find_connected() -> dict[str, Any]:
            found: dict[str, Any] | None = api.find("nodes", name)
            return found if found is not None and found["is_connected"] else {}

        return wait_until(find_connected, timeout_seconds=60, what=f"{name} is connected")


def ping(api: Api, node_id: str) -> None:
    """A signed job that does nothing goes the whole way to the executor and back."""
    api.wait(api.call("POST", f"/nodes/{node_id}/ping")["jobs"][0]["id"])


def own_lab_name() -> str:
    """A lab beside the fleet's, for the same run and worker."""
    return os.environ.get("WCP360_E2E_LAB", "e2e") + os.environ.get("PYTEST_XDIST_WORKER", "") + "c"

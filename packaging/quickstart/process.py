"""The controller as a process of this machine: started once, found again, ended by its id."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from api import Api
from say import QuickstartError, say

ROOT = Path(__file__).resolve().parent.parent.parent
RUN_NAME = os.environ.get("WCP360_RUN_NAME", "run")
"""Names the lab and the hidden folder, so that a test can run beside a person's own fleet."""
START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 40.0
LOG_POLL_SECONDS = 0.3


class ControllerProcess:
    """`wcpd run` with its data in `.run/data`."""

    def __init__(
        self,
        run_dir: Path,
        *,
        api_port: int | None = None,
        gateway_port: int | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`settings` are further WCP360_* variables; ports that are not given come from the environment."""
        self.run_dir = run_dir
        self._settings = dict(settings or {})
        self.data_dir = run_dir / "data"
        self.log_path = run_dir / "controller.log"
        self._pid_path = run_dir / "controller.pid"
        self.api_port = api_port or int(os.environ.get("WCP360_API_PORT", "8360"))
        self.gateway_port = gateway_port or int(os.environ.get("WCP360_GATEWAY_PORT", "8443"))

    @property
    def url(self) -> str:
        """Where this machine reaches it."""
        return f"https://127.0.0.1:{self.api_port}"

    @property
    def ca_file(self) -> Path:
        """What a client needs to believe it."""
        return self.data_dir / "pki" / "ca.pem"

    @property
    def admin(self) -> dict[str, str]:
        """The first administrator: username and password; the one-time password until `sign_in` chose another."""
        path = self._own_admin_path if self._own_admin_path.exists() else self.data_dir / "first-admin.json"
        content: dict[str, str] = json.loads(path.read_text())
        return content

    @property
    def _own_admin_path(self) -> Path:
        return self.run_dir / "admin.json"

    def start(self) -> None:
        """Start it unless it runs, and wait until it is ready.

        Raises:
            QuickstartError: A port is taken, or it ended or did not answer in time (with the end of its log).
        """
        if self.find_pid() is not None:
            return
        for port in (self.api_port, self.gateway_port):
            _require_free(port)
        self.run_dir.mkdir(mode=0o700, exist_ok=True)
        environment = {
            **os.environ,
            "WCP360_DATA_DIR": str(self.data_dir),
            "WCP360_API_PORT": str(self.api_port),
            "WCP360_GATEWAY_PORT": str(self.gateway_port),
            "WCP360_PUBLIC_NAMES": "controller",
            "WCP360_BUNDLE_DIR": str(self.run_dir / "bundles"),
            "WCP360_LOG_FORMAT": "text",
            **self._settings,
        }
        environment.pop("WCP360_CONFIG", None)
        with self.log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "controller", "run"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches us first; we end it in order
            )
        self._pid_path.write_text(f"{process.pid} {read_start_time(process.pid)}")
        self._wait_ready(process)

    def _wait_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                raise QuickstartError("the controller ended at once", hint=self._log_tail())
            if self.ca_file.exists() and Api(self.url, self.ca_file).is_ready():
                return
            time.sleep(0.2)
        raise QuickstartError("the controller is not ready after a minute", hint=self._log_tail())

    def sign_in(self) -> Api:
        """An API client of the first administrator.

        Raises:
            QuickstartError: The password does not work any more.
        """
        api = Api(self.url, self.ca_file)
        api.sign_in_first(self.admin, self._own_admin_path)
        return api

    def find_pid(self) -> int | None:
        """Its process id while it runs; a number that another process got since is not it, nor is a dead child."""
        try:
            pid_text, _, started = self._pid_path.read_text().partition(" ")
        except FileNotFoundError:
            return None
        pid = int(pid_text)
        return pid if read_start_time(pid) == started and not is_zombie(pid) else None

    def stop(self) -> None:
        """End it and wait; TERM, then KILL."""
        pid = self.find_pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
            while self.find_pid() is not None and not is_zombie(pid):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.1)
        self._pid_path.unlink(missing_ok=True)

    def follow_log(self) -> None:
        """Print what the log gains, until interrupted or the controller ends."""
        with self.log_path.open() as log:
            log.seek(0, os.SEEK_END)
            while True:
                line = log.readline()
                if line:
                    say(line.rstrip("\n"))
                    continue
                pid = self.find_pid()
                if pid is None or is_zombie(pid):
                    raise QuickstartError("the controller has ended", hint=self._log_tail())
                time.sleep(LOG_POLL_SECONDS)

    def _log_tail(self) -> str:
        lines = self.log_path.read_text(errors="replace").splitlines()[-15:]
        return "The end of its log:\n" + "\n".join(f"  {line}" for line in lines)


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))  # noqa: S104 - the controller will ask for the same
        except OSError as error:
            raise QuickstartError(
                f"port {port} is in use",
                hint="End what uses it, or set WCP360_API_PORT and WCP360_GATEWAY_PORT to free ports.",
            ) from error


def read_start_time(pid: int) -> str:
    """Field 22 of /proc/PID/stat, empty when there is no such process. Source: proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return fields[19]


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True

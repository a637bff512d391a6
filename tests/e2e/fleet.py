"""A controller of its own and real nodes, for the end-to-end tests: the same pieces that `make run` uses."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from api import Api
from process import ControllerProcess
from wcplab import Completed, Lab, Node

T = TypeVar("T")
MIB = 1024 * 1024
POLL_SECONDS = 0.1
INSTALL_TIMEOUT_SECONDS = 300.0
MODULES = {"account", "php", "web"}
"""What every agent knows; newer ones are given more."""


def wait_until(condition: Callable[[], T], *, timeout_seconds: float, what: str) -> T:
    """The first true value of the condition; fails with `what` when there is none in time."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_seconds:.0f} s: {what}")
        time.sleep(POLL_SECONDS)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True


@dataclass
class Fleet:
    """Everything an end-to-end test needs; names are counted so that tests never share an account."""

    controller: ControllerProcess
    lab: Lab
    api: Api
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    hosts: tuple[str, ...] = ()
    """The nodes that it began with; those that a test adds for itself come and go."""

    def node(self, name: str) -> Node:
        return self.lab.node(name)

    def node_id(self, name: str) -> str:
        found = self.api.find("nodes", name)
        assert found is not None, f"{name} is not enrolled"
        node_id: str = found["id"]
        return node_id

    def run(self, node: str, *argv: str, timeout_seconds: float = 60.0) -> Completed:
        """A command inside a node, as root."""
        return self.node(node).run(list(argv), timeout_seconds=timeout_seconds)

    def install_command(self, name: str, **options: Any) -> str:
        """The one line that an administrator pastes."""
        answer = self.api.call("POST", "/enrolment-tokens", {"name": name, "approval": "auto", **options})
        command: str = answer["command"]
        return command

    def enrol(self, name: str) -> None:
        """Paste the line in the node and wait until its modules are there."""
        result = self.run(name, "/bin/sh", "-c", self.install_command(name), timeout_seconds=INSTALL_TIMEOUT_SECONDS)
        assert result.exit_code == 0, result.stdout + result.stderr
        self.wait_ready(name)

    def wait_ready(self, name: str) -> None:
        wait_until(lambda: self.is_ready(name), timeout_seconds=240, what=f"{name} connected with its modules")

    def is_ready(self, name: str) -> bool:
        node = self.api.find("nodes", name)
        if node is None or not node["is_connected"]:
            return False
        modules = self.api.call("GET", f"/nodes/{node['id']}/modules")["items"]
        enabled = {module["name"] for module in modules if module["observed_status"] == "enabled"}
        return enabled >= MODULES and len(enabled) == len(modules)

    def package(self, name: str = "e2e", **limits: Any) -> str:
        body = {
            "name": name, "description": "for tests", "cpu_percent": 100, "memory_bytes": 256 * MIB,
            "processes_max": 60, "disk_bytes": 64 * MIB, **limits,
        }  # fmt: skip
        package_id: str = self.api.ensure("packages", name, body)["id"]
        return package_id

    def client(self) -> str:
        client_id: str = self.api.ensure("clients", "E2E Ltd", {"name": "E2E Ltd", "email": "e2e@example.com"})["id"]
        return client_id

    def account(self, node: str, *, package_id: str | None = None) -> dict[str, Any]:
        """A new account that is on its node."""
        body = {
            "name": f"acc{next(self.numbers)}",
            "client_id": self.client(),
            "package_id": package_id or self.package(),
            "node_id": self.node_id(node),
        }
        return self.change("POST", "/accounts", body)

    def site(self, account: dict[str, Any], *, domain: str | None = None, **options: Any) -> dict[str, Any]:
        """A new site that is on its node."""
        body = {"account_id": account["id"], "domain": domain or f"site{next(self.numbers)}.example", **options}
        return self.change("POST", "/sites", body)

    def change(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """A mutation, followed to the end of its jobs; the resource."""
        answer = self.api.call(method, path, body)
        for job in answer.get("jobs", []):
            self.api.wait(job["id"])
        resource: dict[str, Any] = answer.get("resource", answer)
        return resource

    def ended(self, job_id: str, *, timeout_seconds: float = 60.0) -> dict[str, Any]:
        """The job with its explanation, once it has ended, well or badly."""
        return wait_until(
            lambda: (job := self.api.call("GET", f"/jobs/{job_id}"))["is_final"] and job,
            timeout_seconds=timeout_seconds,
            what=f"job {job_id} has ended",
        )

    def ask(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """One request whatever is answered, for tests of the answer itself."""
        return self.api._http.request(method, f"/api/v1{path}", json=body)

    @contextmanager
    def settings(self, **variables: str) -> Iterator[None]:
        """The controller with other settings for a while; both times it starts anew and every node is back after it."""
        before = dict(self.controller._settings)
        try:
            self.restart({**before, **variables})
            yield
        finally:
            self.restart(before)

    def restart(self, settings: dict[str, str] | None = None) -> None:
        """Stop the controller in order, start it, and let every node find it at once instead of after its back-off."""
        self.controller.stop()
        if settings is not None:
            self.controller._settings = settings
        self.controller.start()
        names = [
            node["name"] for node in self.api.call("GET", "/nodes?limit=200")["items"] if node["state"] == "active"
        ]
        for name in names:
            self.run(name, "/usr/bin/systemctl", "restart", "wcp-agent.service").check()
        for name in names:
            self.wait_ready(name)

    def write_as(self, node: str, account: str, path: str, content: str) -> None:
        """Write a file as the tenant, as SFTP would."""
        argv = ["/usr/sbin/runuser", "-u", account, "--", "/usr/bin/tee", path]
        self.node(node).run(argv, stdin=content.encode()).check()

    def get(self, node: str, host: str, path: str = "/") -> httpx.Response:
        """What a visitor of the host name gets from the node."""
        url = f"http://{self.node(node).address}{path}"
        return httpx.get(url, headers={"Host": host}, timeout=10.0)


def php_version(node: Node) -> str:
    """Debian 12 has PHP 8.2, Debian 13 has PHP 8.4."""
    return {"bookworm": "8.2", "trixie": "8.4"}[node.suite]


def start_fleet(run_dir: Path, lab_name: str, suites: list[str]) -> Fleet:
    """Boot, start, enrol. The caller ends it with `stop_fleet`."""
    from nodes import build_bundle  # noqa: PLC0415 - reads the quickstart's own argv-free helpers only when needed

    build_bundle(run_dir)
    controller = ControllerProcess(
        run_dir,
        api_port=free_port(),
        gateway_port=free_port(),
        settings={"WCP360_HEARTBEAT_SECONDS": "2", "WCP360_METRICS_SECONDS": "5", "WCP360_LOG_FORMAT": "json"},
    )
    lab = Lab(lab_name, progress=lambda _line: None)
    lab.down()
    try:
        lab.up(len(suites), suites=suites)
        controller.start()
        hosts = tuple(node.name for node in lab.nodes)
        fleet = Fleet(controller=controller, lab=lab, api=controller.sign_in(), hosts=hosts)
        for name in hosts:
            fleet.enrol(name)
    except BaseException:  # also pytest's own when the time is over: nobody else knows what was started
        controller.stop()
        lab.down()
        raise
    return fleet


def stop_fleet(fleet: Fleet) -> None:
    fleet.controller.stop()
    fleet.lab.down()

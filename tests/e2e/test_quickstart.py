"""What `make run` promises a newcomer: a served page, a summary, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.fleet import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
NAME = "quickstarttest"
RUN_DIR = ROOT / f".{NAME}"
UP_TIMEOUT_SECONDS = 400.0
KEYS = {
    "controller_url", "admin_user", "admin_password", "ca_file", "nodes", "account", "site_host", "site_url",
    "site_response",
}  # fmt: skip


class Quickstart:
    """The program behind `make run`, under another name and on other ports than a person's own."""

    def __init__(self, **environment: str) -> None:
        self.environment = {
            **os.environ,
            "WCP360_RUN_NAME": NAME,
            "WCP360_API_PORT": str(free_port()),
            "WCP360_GATEWAY_PORT": str(free_port()),
            **environment,
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        argv = [sys.executable, "packaging/quickstart/quickstart.py", *words]
        return subprocess.Popen(
            argv, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, *words: str) -> str:
        process = self.start(*words)
        output, _ = process.communicate(timeout=UP_TIMEOUT_SECONDS)
        assert process.returncode == 0, output
        return output


def summary() -> dict[str, Any]:
    path = RUN_DIR / "summary.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def is_alive(url: str, ca_file: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", verify=ssl.create_default_context(cafile=ca_file)).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def quickstart(machine: None) -> Iterator[Quickstart]:
    started = Quickstart()
    started.run("clean")
    yield started
    started.run("clean")
    shutil.rmtree(RUN_DIR, ignore_errors=True)


@pytest.mark.timeout(900)
def test_run_when_detached_serves_resumes_stops_and_cleans(quickstart: Quickstart) -> None:
    output = quickstart.run("up", "--detach")

    facts = summary()
    assert set(facts) >= KEYS
    assert facts["site_response"].startswith("Hello from")
    assert len(facts["nodes"]) == 2
    for said in (facts["controller_url"], facts["admin_password"], facts["site_host"], "Three things to try next"):
        assert said in output
    page = httpx.get(facts["site_url"], headers={"Host": facts["site_host"]})
    assert page.text.strip() == facts["site_response"]

    again = quickstart.run("up", "--detach")
    assert "enrolling" not in again
    assert summary()["admin_password"] == facts["admin_password"]

    quickstart.run("stop")
    assert not is_alive(facts["controller_url"], facts["ca_file"])
    resumed = quickstart.run("up", "--detach")
    assert "enrolling" not in resumed
    assert httpx.get(facts["site_url"], headers={"Host": facts["site_host"]}).status_code == 200

    quickstart.run("clean")
    labs = subprocess.run(["packaging/lab/wcp-lab", "status"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert NAME not in labs.stdout


@pytest.mark.timeout(900)
def test_run_when_interrupted_ends_what_it_started(quickstart: Quickstart) -> None:
    process = quickstart.start("up")
    assert process.stdout is not None
    for line in process.stdout:
        if "Ctrl-C ends everything" in line:
            break
    facts = summary()

    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)

    assert process.returncode == 0, output
    assert not is_alive(facts["controller_url"], facts["ca_file"])


@pytest.mark.timeout(600)
def test_run_when_nodes_cannot_be_booted_simulates_and_says_so() -> None:
    simulated = Quickstart(WCP360_SIMULATE="1")
    simulated.run("clean")
    shutil.rmtree(RUN_DIR, ignore_errors=True)
    try:
        output = simulated.run("up", "--detach")

        assert "running with simulated ones" in output
        facts = summary()
        assert facts["site_response"] is None
        assert {node["is_connected"] for node in facts["nodes"]} == {True}
        wait_until(lambda: is_alive(facts["controller_url"], facts["ca_file"]), timeout_seconds=5, what="it serves")
    finally:
        simulated.run("clean")
        shutil.rmtree(RUN_DIR, ignore_errors=True)

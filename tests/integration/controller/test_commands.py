"""`wcpd`: what an operator types on the controller's machine."""

from __future__ import annotations

import io
import json
import os
import signal
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from controller.__main__ import main
from tests.integration.live import free_port

TIMEOUT_SECONDS = 60


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WCP360_")}
    return clean | {
        "WCP360_DATA_DIR": str(tmp_path / "data"),
        "WCP360_CONFIG": str(_write(tmp_path / "controller.toml", 'public_names = ["127.0.0.1"]\n')),
        "WCP360_API_HOST": "127.0.0.1",
        "WCP360_API_PORT": str(free_port()),
        "WCP360_GATEWAY_HOST": "127.0.0.1",
        "WCP360_GATEWAY_PORT": str(free_port()),
    }


def _write(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def wcpd(environment: dict[str, str], *words: str) -> Answer:
    """The command in this process: starting Python and importing everything takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.dict(os.environ, environment, clear=True), redirect_stdout(out), redirect_stderr(err):
        code = main(words)
    return Answer(code, out.getvalue(), err.getvalue())


def wcpd_process(environment: dict[str, str], *words: str) -> Answer:
    """The command as an operator runs it."""
    argv = [sys.executable, "-m", "controller", *words]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    return Answer(done.returncode, done.stdout, done.stderr)


def _is_written_by(ready: Path, pid: int) -> bool:
    """A killed process leaves its file behind; the pid tells whose it is."""
    return ready.exists() and json.loads(ready.read_text())["pid"] == pid


@contextmanager
def running(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-m", "controller", "run"]
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        ready = Path(environment["WCP360_DATA_DIR"]) / "controller.ready"
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not _is_written_by(ready, process.pid):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline, "the controller was not ready in time"
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def login(environment: dict[str, str], username: str, password: str) -> httpx.Response:
    data = Path(environment["WCP360_DATA_DIR"])
    tls = ssl.create_default_context(cafile=str(data / "pki" / "ca.pem"))
    url = f"https://127.0.0.1:{environment['WCP360_API_PORT']}/api/v1/auth/login"
    return httpx.post(url, json={"username": username, "password": password}, verify=tls)


def read_first_admin(environment: dict[str, str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((Path(environment["WCP360_DATA_DIR"]) / "first-admin.json").read_text())
    return content


def test_run_from_nothing_serves_and_ends_in_order_at_sigterm(environment: dict[str, str]) -> None:
    data = Path(environment["WCP360_DATA_DIR"])
    with running(environment) as process:
        admin = read_first_admin(environment)
        answer = login(environment, admin["username"], admin["password"])
        modes = [(data / name).stat().st_mode & 0o777 for name in ("", "first-admin.json", "controller.db", "pki")]
        process.send_signal(signal.SIGTERM)
        output, log = process.communicate(timeout=TIMEOUT_SECONDS)

    assert answer.status_code == 200
    assert answer.json()["user"]["must_change_password"] is True
    assert modes == [0o700, 0o600, 0o600, 0o700]
    assert process.returncode == 0
    assert not (data / "controller.ready").exists()
    assert admin["password"] not in output + log
    assert all(json.loads(line) for line in log.splitlines())


def test_run_again_keeps_the_administrator_and_the_keys(environment: dict[str, str]) -> None:
    with running(environment):
        admin = read_first_admin(environment)

    with running(environment):
        again = login(environment, admin["username"], admin["password"])

    assert again.status_code == 200
    assert read_first_admin(environment) == admin


def test_run_when_the_port_is_taken_says_so_and_fails(environment: dict[str, str]) -> None:
    with running(environment):
        second = wcpd_process(environment | {"WCP360_DATA_DIR": environment["WCP360_DATA_DIR"] + "2"}, "run")

    assert second.returncode != 0
    assert "in use" in second.stderr


def test_reset_password_lets_a_locked_out_administrator_in_again(environment: dict[str, str]) -> None:
    with running(environment):
        old = read_first_admin(environment)
        reset = wcpd(environment, "reset-password", "admin")
        new_password = reset.stdout.split()[-1]

        assert reset.returncode == 0
        assert login(environment, "admin", old["password"]).status_code == 401
        assert login(environment, "admin", new_password).status_code == 200


def test_create_admin_adds_one_more(environment: dict[str, str]) -> None:
    wcpd(environment, "migrate")

    made = wcpd(environment, "create-admin", "Grace")
    again = wcpd(environment, "create-admin", "grace")

    assert made.stdout.startswith("grace: one-time password ")
    assert (again.returncode, "there is a user 'grace' already" in again.stderr) == (1, True)


def test_reset_password_of_nobody_fails_clearly(environment: dict[str, str]) -> None:
    wcpd(environment, "migrate")

    answer = wcpd(environment, "reset-password", "nobody")

    assert (answer.returncode, answer.stderr) == (1, "wcpd: there is no user 'nobody'\n")


def test_any_command_with_an_unknown_setting_names_it(environment: dict[str, str], tmp_path: Path) -> None:
    file = _write(tmp_path / "wrong.toml", "api_prot = 1\n")

    answer = wcpd(environment | {"WCP360_CONFIG": str(file)}, "check")

    assert answer.returncode == 2
    assert "unknown setting 'api_prot'" in answer.stderr


def test_check_of_a_fresh_machine_is_content(environment: dict[str, str]) -> None:
    answer = wcpd(environment | {"WCP360_TYPO": "1"}, "check")

    assert answer.returncode == 0
    assert "WCP360_TYPO sets nothing" in answer.stdout


def test_check_when_the_database_is_of_a_newer_release_fails(environment: dict[str, str]) -> None:
    wcpd(environment, "migrate")
    database = Path(environment["WCP360_DATA_DIR"]) / "controller.db"
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")

    answer = wcpd(environment, "check")

    assert answer.returncode == 1
    assert "9999" in answer.stdout


def test_openapi_prints_the_document_and_leaves_nothing(environment: dict[str, str]) -> None:
    answer = wcpd(environment, "openapi")

    assert json.loads(answer.stdout)["openapi"].startswith("3.1")
    assert not Path(environment["WCP360_DATA_DIR"]).exists()

"""Making faults on a real node: units that die or stop at a fault point, full disks, broken journals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.fleet import Fleet, wait_until

EXECUTOR = "wcp-executor.service"
AGENT = "wcp-agent.service"
STATE_DIR = "/var/lib/wcp360-executor"
SYSTEMCTL = "/usr/bin/systemctl"
STOP_SECONDS = 150.0
"""A step that runs may end first (TimeoutStopSec of the unit)."""


def shell(fleet: Fleet, node: str, script: str, *, timeout_seconds: float = 60.0) -> str:
    """A script of the test's own, as root on the node; what it said."""
    said: str = fleet.run(node, "/bin/sh", "-ec", script, timeout_seconds=timeout_seconds).check().stdout
    return said


def show(fleet: Fleet, node: str, unit: str, name: str) -> str:
    said: str = fleet.run(node, SYSTEMCTL, "show", "--value", "--property", name, unit).check().stdout
    return said.strip()


def rest_executor(fleet: Fleet, node: str) -> None:
    """End the executor in order; the next connection starts it again, with what was changed meanwhile."""
    script = f"{SYSTEMCTL} stop {EXECUTOR}; {SYSTEMCTL} reset-failed {EXECUTOR} || true"
    shell(fleet, node, script, timeout_seconds=STOP_SECONDS)


@contextmanager
def drop_in(fleet: Fleet, node: str, unit: str, text: str) -> Iterator[None]:
    """A unit with other settings until the next boot or the end of the block; it is not restarted here."""
    folder = f"/run/systemd/system/{unit}.d"
    shell(fleet, node, f"mkdir -p {folder}")
    fleet.node(node).write_text(f"{folder}/90-fault.conf", text)
    shell(fleet, node, f"{SYSTEMCTL} daemon-reload")
    try:
        yield
    finally:
        shell(fleet, node, f"rm -rf {folder}; {SYSTEMCTL} daemon-reload")


@contextmanager
def executor_fault(fleet: Fleet, node: str, fault: str) -> Iterator[None]:
    """The next executor dies, or stops, at this fault point."""
    with drop_in(fleet, node, EXECUTOR, f"[Service]\nEnvironment=WCP360_FAULT={fault}\nWatchdogSec=0\n"):
        rest_executor(fleet, node)
        yield


def wait_until_stopped(fleet: Fleet, node: str) -> int:
    """The executor has reached a fault point that says `stop`; its pid."""

    def find() -> int | None:
        pid = int(show(fleet, node, EXECUTOR, "MainPID") or 0)
        if not pid:
            return None
        state = fleet.run(node, "/bin/cat", f"/proc/{pid}/stat").stdout.rpartition(")")[2].split()
        return pid if state[:1] == ["T"] else None

    found = wait_until(find, timeout_seconds=30, what="the executor stands at its fault point")
    assert found is not None
    return found


def wait_until_died(fleet: Fleet, node: str, unit: str) -> None:
    wait_until(
        lambda: int(show(fleet, node, unit, "NRestarts") or 0) > 0, timeout_seconds=30, what=f"{unit} died and is back"
    )


def journal_rows(fleet: Fleet, node: str, query: str) -> list[Any]:
    """Ask the executor's journal."""
    program = (
        "import json, sqlite3, sys;"
        f"journal = sqlite3.connect('file:{STATE_DIR}/journal.db?mode=ro', uri=True);"
        "print(json.dumps(journal.execute(sys.argv[1]).fetchall()))"
    )
    rows: list[Any] = json.loads(fleet.run(node, "/usr/bin/python3", "-c", program, query).check().stdout)
    return rows


def change_site(fleet: Fleet, site: dict[str, Any], value: str) -> dict[str, Any]:
    """Ask for a change of the site's server block, and nothing else; its job."""
    body = {"extra_directives": f"location = /fault {{ return 200 {value}; }}"}
    job: dict[str, Any] = fleet.api.call("PATCH", f"/sites/{site['id']}", body)["jobs"][0]
    return job


def served(fleet: Fleet, node: str, site: dict[str, Any]) -> str | None:
    """What the node serves now."""
    answer = fleet.get(node, site["domain"], "/fault")
    return answer.text if answer.status_code == 200 else None


def require_clean(fleet: Fleet, node: str) -> None:
    """No temporary file of ours, no open transaction, a configuration that nginx takes."""
    script = "find /etc /srv/accounts /run/wcp-php /var/log/wcp360 -xdev -name '.wcp360-*'"
    assert shell(fleet, node, script) == ""
    assert journal_rows(fleet, node, "SELECT subject, state FROM transactions") == []
    assert fleet.run(node, "/usr/sbin/nginx", "-t").exit_code == 0

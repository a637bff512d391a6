"""Live tail of a site's log on real nodes: the tenant's own process reads it, and whatever is put in its way is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.e2e.fleet import Fleet, wait_until

Hosted = dict[str, tuple[dict[str, Any], dict[str, Any]]]
WORKER = "agent worker"


@pytest.fixture(scope="module")
def hosted(fleet: Fleet) -> Hosted:
    """An account with a site on each node."""
    made = {}
    for name in fleet.hosts:
        account = fleet.account(name)
        made[name] = (account, fleet.site(account))
    return made


def url(site: dict[str, Any], log: str = "access") -> str:
    return f"/api/v1/sites/{site['id']}/logs/{log}"


@contextmanager
def following(fleet: Fleet, site: dict[str, Any], **query: Any) -> Iterator[Iterator[dict[str, Any]]]:
    """The records of a followed log."""
    with fleet.api._http.stream(
        "GET", url(site), params={"follow": "true", **query}, timeout=httpx.Timeout(30.0)
    ) as answer:
        assert answer.status_code == 200, answer.read()
        yield (json.loads(line) for line in answer.iter_lines() if line)


def next_with(records: Iterator[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    """Records up to and including the first whose line has the text."""
    seen = []
    for record in records:
        seen.append(record)
        if text in (record["line"] or ""):
            return seen
    raise AssertionError(f"the log ended without {text!r}: {seen}")


def read_log(fleet: Fleet, site: dict[str, Any], log: str = "access", **query: Any) -> httpx.Response:
    return fleet.api._http.get(url(site, log), params=query, timeout=60.0)


def worker_pids(fleet: Fleet, node: str, account: str) -> list[str]:
    return fleet.run(node, "/usr/bin/pgrep", "-u", account, "-f", WORKER).stdout.split()


def log_path(account: dict[str, Any], site: dict[str, Any], log: str = "access") -> str:
    return f"/var/log/wcp360/sites/{account['name']}/{site['domain']}.{log}.log"


def test_tail_when_visitors_come_shows_them_live(fleet: Fleet, each_node: str, hosted: Hosted) -> None:
    _, site = hosted[each_node]
    fleet.get(each_node, site["domain"], "/before")

    with following(fleet, site, lines=10) as records:
        first = next_with(records, "/before")
        fleet.get(each_node, site["domain"], "/live")
        live = next_with(records, "/live")

    assert first[-1]["cursor"] != live[-1]["cursor"]
    page = read_log(fleet, site, after=first[-1]["cursor"]).json()
    assert [item["line"] for item in page["items"]] == [record["line"] for record in live]


def test_tail_while_it_runs_is_a_process_of_the_account_in_its_slice(
    fleet: Fleet, each_node: str, hosted: Hosted
) -> None:
    account, site = hosted[each_node]
    fleet.get(each_node, site["domain"], "/slice")

    with following(fleet, site, lines=1) as records:
        next(records)
        (pid,) = worker_pids(fleet, each_node, account["name"])
        group = fleet.run(each_node, "/usr/bin/cat", f"/proc/{pid}/cgroup").check().stdout
        status = fleet.run(each_node, "/usr/bin/cat", f"/proc/{pid}/status").check().stdout

    assert f"user-{account['uid']}.slice" in group
    assert f"Uid:\t{account['uid']}\t{account['uid']}\t{account['uid']}\t{account['uid']}" in status
    assert "CapEff:\t0000000000000000" in status
    assert "NoNewPrivs:\t1" in status
    wait_until(
        lambda: not worker_pids(fleet, each_node, account["name"]), timeout_seconds=20, what="the worker has ended"
    )


def test_tail_when_the_log_is_rotated_goes_on_with_the_new_file(fleet: Fleet, each_node: str, hosted: Hosted) -> None:
    _, site = hosted[each_node]
    fleet.get(each_node, site["domain"], "/old-file")

    with following(fleet, site, lines=1) as records:
        first = next_with(records, "/old-file")
        fleet.run(each_node, "/usr/sbin/logrotate", "--force", "/etc/logrotate.conf").check()
        seen: list[dict[str, Any]] = []
        # nginx hands over to the new file when its workers have: the first visits may still be in the old one.
        while not (seen and seen[-1]["line"] and "rotated" in [record["mark"] for record in seen]):
            fleet.get(each_node, site["domain"], f"/new-file-{len(seen)}")
            seen.append(next(records))

    assert "/new-file" in seen[-1]["line"]
    page = read_log(fleet, site, after=first[-1]["cursor"], lines=1000).json()
    assert [item["mark"] for item in page["items"] if item["mark"]] == ["rotated"]
    lines = [item["line"] for item in page["items"] if item["line"]]
    assert lines[: len(seen) - 1] == [record["line"] for record in seen if record["line"]]


def test_fault_31_tail_when_the_log_is_a_link_or_no_file_refuses(fleet: Fleet, node: str, hosted: Hosted) -> None:
    account, _ = hosted[node]
    site = fleet.site(account)
    path = log_path(account, site)
    answers = {}

    for name, argv in (
        ("link", ("/usr/bin/ln", "-s", "/etc/passwd", path)),
        ("up", ("/usr/bin/ln", "-s", f"../{account['name']}/{site['domain']}.error.log", path)),
        ("fifo", ("/usr/bin/mkfifo", path)),
        ("folder", ("/usr/bin/mkdir", path)),
    ):
        fleet.run(node, "/usr/bin/rm", "-rf", path).check()
        fleet.run(node, *argv).check()
        answer = read_log(fleet, site)
        answers[name] = (answer.status_code, answer.json()["code"])
    fleet.run(node, "/usr/bin/rm", "-rf", path).check()
    missing = read_log(fleet, site)

    assert answers == {
        "link": (403, "leads_outside"),
        "up": (403, "leads_outside"),
        "fifo": (409, "not_a_file"),
        "folder": (409, "not_a_file"),
    }
    assert (missing.status_code, missing.json()["code"]) == (404, "no_log")


def test_fault_31_neighbour_reaches_neither_the_socket_of_a_worker_nor_the_log(
    fleet: Fleet, node: str, hosted: Hosted
) -> None:
    account, site = hosted[node]
    neighbour = fleet.account(node)
    fleet.get(node, site["domain"], "/secret")
    probe = (
        "import os, socket, sys\n"
        "found = []\n"
        "for what in (lambda: os.listdir('/run/wcp360/streams'),\n"
        "             lambda: socket.socket(socket.AF_UNIX).connect('/run/wcp360/executor.sock'),\n"
        "             lambda: open(sys.argv[1])):\n"
        "    try:\n"
        "        what()\n"
        "        found.append('open')\n"
        "    except PermissionError:\n"
        "        found.append('refused')\n"
        "print(*found)\n"
    )

    with following(fleet, site, lines=1) as records:
        next(records)
        argv = ("/usr/sbin/runuser", "-u", neighbour["name"], "--", "/usr/bin/python3", "-c", probe)
        result = fleet.run(node, *argv, log_path(account, site)).check()

    assert result.stdout.split() == ["refused", "refused", "refused"]


def test_tail_when_its_account_is_suspended_ends(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account)
    fleet.get(node, site["domain"], "/")

    with following(fleet, site, lines=1) as records:
        next(records)
        fleet.change("POST", f"/accounts/{account['id']}/suspend", {"reason": "unpaid"})
        rest = list(records)

    assert rest[-1]["code"] == "worker_failed"
    assert worker_pids(fleet, node, account["name"]) == []


def test_tail_when_the_agent_is_stopped_leaves_no_worker(fleet: Fleet, node: str, hosted: Hosted) -> None:
    account, site = hosted[node]
    fleet.get(node, site["domain"], "/")

    with following(fleet, site, lines=1) as records:
        next(records)
        fleet.run(node, "/usr/bin/systemctl", "kill", "--signal=KILL", "wcp-agent.service").check()
        rest = list(records)
    wait_until(lambda: not worker_pids(fleet, node, account["name"]), timeout_seconds=20, what="the worker has ended")
    fleet.wait_ready(node)

    assert rest[-1]["code"] == "agent_offline"
    assert read_log(fleet, site, lines=1).status_code == 200


def test_log_when_the_node_is_away_says_so(fleet: Fleet, node: str, hosted: Hosted) -> None:
    _, site = hosted[node]
    fleet.run(node, "/usr/bin/systemctl", "stop", "wcp-agent.service").check()
    try:
        wait_until(
            lambda: not fleet.api.find("nodes", node)["is_connected"], timeout_seconds=30, what="the node is offline"
        )
        answer = read_log(fleet, site)
    finally:
        fleet.run(node, "/usr/bin/systemctl", "start", "wcp-agent.service").check()
        fleet.wait_ready(node)

    assert (answer.status_code, answer.json()["code"]) == (503, "agent_offline")

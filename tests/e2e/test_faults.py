"""Killed at random moments while accounts are made: afterwards each is fully there or fully not, and its job says which.

Each round draws its moment from a seed that the test prints, so that a failure can be run again.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.e2e.fleet import Fleet, php_version, wait_until

ROUNDS = 3
ACCOUNTS_PER_ROUND = 3
LONGEST_DELAY_SECONDS = 1.5
HEAL_TIMEOUT_SECONDS = 150.0
GOOD = {"succeeded", "superseded"}
FINAL = GOOD | {"failed", "refused", "expired", "cancelled", "indeterminate", "stuck", "discarded"}


def kill_unit(fleet: Fleet, node: str, unit: str) -> None:
    fleet.run(node, "/usr/bin/systemctl", "kill", "--signal=KILL", "--kill-who=all", unit)


def kill_agent(fleet: Fleet, node: str) -> None:
    kill_unit(fleet, node, "wcp-agent.service")


def kill_executor(fleet: Fleet, node: str) -> None:
    kill_unit(fleet, node, "wcp-executor.service")


def kill_node(fleet: Fleet, node: str) -> None:
    fleet.lab.kill_node(node)
    fleet.lab.start_node(node)


def kill_controller(fleet: Fleet, _node: str) -> None:
    pid = fleet.controller.find_pid()
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: fleet.controller.find_pid() is None, timeout_seconds=10, what="the controller is dead")
    fleet.controller.start()


def begin_account(fleet: Fleet, node: str) -> tuple[str, str] | None:
    """Ask for an account with a site; None when the controller was not there to take it."""
    name = f"f{next(fleet.numbers)}"
    try:
        body = {
            "name": name,
            "client_id": fleet.client(),
            "package_id": fleet.package(),
            "node_id": fleet.node_id(node),
        }
        account = fleet.api.call("POST", "/accounts", body)["resource"]
        site = {"account_id": account["id"], "domain": f"{name}.example", "php_version": php_version(fleet.node(node))}
        fleet.api.call("POST", "/sites", site)
    except httpx.TransportError:
        return None
    return account["id"], name


def jobs_of(fleet: Fleet, account_id: str) -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = fleet.api.call("GET", f"/jobs?account_id={account_id}&limit=200")["items"]
    return jobs


def accounts_named(fleet: Fleet) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = fleet.api.call("GET", "/accounts?limit=200")["items"]
    return [account for account in found if account["name"].startswith("f")]


def is_settled(fleet: Fleet) -> bool:
    try:
        return all(job["state"] in FINAL for account in accounts_named(fleet) for job in jobs_of(fleet, account["id"]))
    except httpx.TransportError:
        return False


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kill", [kill_agent, kill_executor, kill_node, kill_controller])
def test_provisioning_when_killed_at_random_is_all_or_nothing(
    fleet: Fleet, node: str, kill: Callable[[Fleet, str], None]
) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    choice = random.Random(seed)

    for _ in range(ROUNDS):
        for _ in range(ACCOUNTS_PER_ROUND):
            begin_account(fleet, node)
        # The moment itself is what the test varies; nothing is waited for here.
        time.sleep(choice.uniform(0.0, LONGEST_DELAY_SECONDS))
        kill(fleet, node)
        fleet.wait_ready(node)
        wait_until(lambda: is_settled(fleet), timeout_seconds=HEAL_TIMEOUT_SECONDS, what="every job has ended")

    for account in accounts_named(fleet):
        assert_all_or_nothing(fleet, node, account)


def assert_all_or_nothing(fleet: Fleet, node: str, account: dict[str, Any]) -> None:
    account = fleet.api.call("GET", f"/accounts/{account['id']}")
    name = account["name"]
    states = [job["state"] for job in jobs_of(fleet, account["id"])]
    has_user = fleet.run(node, "/usr/bin/getent", "passwd", name).exit_code == 0
    has_home = fleet.run(node, "/usr/bin/test", "-d", f"/srv/accounts/{name}").exit_code == 0
    if account["observed_generation"] == account["desired_generation"]:
        assert has_user and has_home, (name, states)
        if fleet.api.find("sites", f"{name}.example"):
            answer = fleet.get(node, f"{name}.example")
            assert answer.status_code == 200, (name, states, answer.status_code)
    else:
        assert not has_user and not has_home, (name, states, "half an account is left")
        assert not set(states) <= GOOD, (name, "the job claims success")
    leftovers = fleet.run(
        node, "/bin/sh", "-c", "ls /srv/accounts/*/.wcp-* /etc/nginx/wcp360/sites/.* 2>/dev/null"
    ).stdout
    assert [line for line in leftovers.split() if not line.endswith(("/.", "/.."))] == []


def test_sites_when_the_controller_is_gone_keep_serving(fleet: Fleet, node: str) -> None:
    site = fleet.site(fleet.account(node))
    fleet.controller.stop()
    try:
        assert fleet.get(node, site["domain"]).status_code == 200
    finally:
        fleet.controller.start()
    fleet.wait_ready(node)


def test_node_when_its_network_was_cut_catches_up(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    fleet.node(node).cut()
    body = {"account_id": account["id"], "domain": "offline.example"}
    answer = fleet.api.call("POST", "/sites", body)

    fleet.node(node).heal()

    fleet.api.wait(answer["jobs"][0]["id"], timeout_seconds=HEAL_TIMEOUT_SECONDS)
    assert fleet.get(node, "offline.example").status_code == 200

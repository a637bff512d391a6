"""Killed at random moments while accounts are made: afterwards each is fully there or fully not, and its job says which.

Each test draws its moments from a seed that it prints; WCP360_E2E_SEED runs the same moments again.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from say import QuickstartError

from tests.e2e.fleet import Fleet, is_free, php_version, wait_until

ROUNDS = 3
ACCOUNTS_PER_ROUND = 3
LONGEST_DELAY_SECONDS = 1.0
HEAL_TIMEOUT_SECONDS = 90.0
GOOD = {"succeeded", "superseded"}


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
    wait_until(lambda: is_gone(fleet), timeout_seconds=10, what="the controller is dead")
    fleet.controller.start()


def is_gone(fleet: Fleet) -> bool:
    """Dead, and its last thread has let go of the ports."""
    ports = (fleet.controller.api_port, fleet.controller.gateway_port)
    return fleet.controller.find_pid() is None and all(is_free(port) for port in ports)


def is_unanswered(error: QuickstartError) -> bool:
    """Whether the controller was gone before it answered, so that nobody can say what it had done."""
    return isinstance(error.__cause__, httpx.TransportError)


def begin_accounts(fleet: Fleet, node: str, names: list[str]) -> None:
    """Ask for accounts with a PHP site each; the first request without an answer ends it."""
    try:
        ids = {"client_id": fleet.client(), "package_id": fleet.package(), "node_id": fleet.node_id(node)}
        for name in names:
            account = fleet.api.call("POST", "/accounts", {"name": name, **ids})["resource"]
            site = {"account_id": account["id"], "domain": f"{name}.example"}
            fleet.api.call("POST", "/sites", {**site, "php_version": php_version(fleet.node(node))})
    except QuickstartError as error:
        if not is_unanswered(error):
            raise


def jobs_of(fleet: Fleet, account_id: str) -> list[dict[str, Any]]:
    """Newest first."""
    jobs: list[dict[str, Any]] = fleet.api.call("GET", f"/jobs?account_id={account_id}&limit=200")["items"]
    return jobs


def is_settled(fleet: Fleet, names: list[str]) -> bool:
    try:
        accounts = [account for name in names if (account := fleet.api.find("accounts", name))]
        return all(job["is_final"] for account in accounts for job in jobs_of(fleet, account["id"]))
    except QuickstartError as error:
        if is_unanswered(error):
            return False
        raise


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kill", [kill_agent, kill_executor, kill_node, kill_controller])
def test_provisioning_when_killed_at_random_is_all_or_nothing(
    fleet: Fleet, node: str, kill: Callable[[Fleet, str], None]
) -> None:
    seed = int(os.environ.get("WCP360_E2E_SEED", random.randrange(2**32)))
    print(f"WCP360_E2E_SEED={seed}")
    choice = random.Random(seed)
    begin_accounts(fleet, node, [])  # the package and the client are not what is tested
    all_names: list[str] = []

    for _ in range(ROUNDS):
        names = [f"f{next(fleet.numbers)}" for _ in range(ACCOUNTS_PER_ROUND)]
        all_names += names
        with ThreadPoolExecutor(max_workers=1) as pool:
            asking: Future[None] = pool.submit(begin_accounts, fleet, node, names)
            # The moment itself is what the test varies; nothing is waited for here.
            time.sleep(choice.uniform(0.0, LONGEST_DELAY_SECONDS))
            kill(fleet, node)
            asking.result()
        fleet.wait_ready(node)
        wait_until(
            lambda names=names: is_settled(fleet, names),
            timeout_seconds=HEAL_TIMEOUT_SECONDS,
            what="every job has ended",
        )

    for name in all_names:
        require_all_or_nothing(fleet, node, name)
    require_no_leftovers(fleet, node)
    for name in all_names:
        require_converges(fleet, node, name)


def require_all_or_nothing(fleet: Fleet, node: str, name: str) -> None:
    """The node has exactly the generation that the controller says it has, and the last job agrees."""
    account = fleet.api.find("accounts", name)
    has_user = fleet.run(node, "/usr/bin/getent", "passwd", name).exit_code == 0
    has_home = fleet.run(node, "/usr/bin/test", "-e", f"/srv/accounts/{name}").exit_code == 0
    if account is None:
        assert not has_user and not has_home, f"{name} is on the node, and the controller does not know it"
        return
    jobs = jobs_of(fleet, account["id"])
    told = (name, account["observed_generation"], [(job["generation"], job["state"], job["error"]) for job in jobs])
    assert jobs[0]["generation"] == account["desired_generation"], told
    assert (jobs[0]["state"] == "succeeded") == account["is_converged"], told
    assert has_user == has_home == (account["observed_generation"] > 0), (told, has_user, has_home)
    site = fleet.api.find("sites", f"{name}.example")
    is_served = fleet.get(node, f"{name}.example").status_code == 200
    assert is_served == (site is not None and site["state"] == "active"), (told, site)


def require_converges(fleet: Fleet, node: str, name: str) -> None:
    """What failed was put back cleanly: asked again, it comes about."""
    account = fleet.api.find("accounts", name)
    if account is None or account["is_converged"]:
        return
    fleet.change("POST", f"/accounts/{account['id']}/converge")
    if fleet.api.find("sites", f"{name}.example"):
        assert fleet.get(node, f"{name}.example").status_code == 200


def require_no_leftovers(fleet: Fleet, node: str) -> None:
    """No half-written file, no open transaction."""
    script = "find /etc /srv/accounts /run/wcp-php /var/lib/wcp360-executor -name '.wcp360-*' 2>/dev/null; true"
    assert fleet.run(node, "/bin/sh", "-c", script).check().stdout == ""
    query = (
        "import sqlite3; journal = sqlite3.connect('file:/var/lib/wcp360-executor/journal.db?mode=ro', uri=True);"
        "print(journal.execute('SELECT count(*) FROM transactions').fetchone()[0])"
    )
    assert fleet.run(node, "/usr/bin/python3", "-c", query).check().stdout.strip() == "0"
    assert fleet.run(node, "/usr/sbin/nginx", "-t").exit_code == 0


def test_sites_when_the_controller_is_gone_keep_serving(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    site = fleet.site(account, php_version=php_version(fleet.node(node)))
    page = f"/srv/accounts/{account['name']}/sites/{site['domain']}/public/index.php"
    fleet.write_as(node, account["name"], page, "<?php echo 'still here';")
    fleet.controller.stop()
    try:
        assert fleet.get(node, site["domain"]).text == "still here"
    finally:
        fleet.restart()


def test_node_when_its_network_was_cut_catches_up(fleet: Fleet, node: str) -> None:
    account = fleet.account(node)
    body = {"account_id": account["id"], "domain": f"offline-{account['name']}.example"}
    fleet.node(node).cut()
    try:
        wait_until(
            lambda: not fleet.api.find("nodes", node)["is_connected"], timeout_seconds=60, what="the node is missed"
        )
        answer = fleet.api.call("POST", "/sites", body)
        refused = fleet.ask("POST", "/sites?dry_run=true", {**body, "domain": f"plan-{body['domain']}"})
        assert (refused.status_code, refused.json()["code"]) == (503, "agent_offline"), refused.text
    finally:
        fleet.node(node).heal()

    fleet.api.wait(answer["jobs"][0]["id"], timeout_seconds=HEAL_TIMEOUT_SECONDS)
    assert fleet.get(node, body["domain"]).status_code == 200


def test_job_when_its_node_is_away_can_be_cancelled(fleet: Fleet, node: str) -> None:
    fleet.run(node, "/usr/bin/systemctl", "stop", "wcp-agent.service").check()
    try:
        wait_until(
            lambda: not fleet.api.find("nodes", node)["is_connected"], timeout_seconds=60, what="the node is missed"
        )
        job = fleet.api.call("POST", f"/nodes/{fleet.node_id(node)}/ping")["jobs"][0]
        cancelled = fleet.api.call("POST", f"/jobs/{job['id']}/cancel")["resource"]
    finally:
        fleet.run(node, "/usr/bin/systemctl", "start", "wcp-agent.service").check()

    assert cancelled["state"] == "cancelled"
    again = fleet.ask("POST", f"/jobs/{job['id']}/cancel")
    assert (again.status_code, "ended" in again.json()["detail"]) == (409, True), again.text
    fleet.wait_ready(node)
    fleet.change("POST", f"/nodes/{fleet.node_id(node)}/ping")
    after = fleet.api.call("GET", f"/jobs/{job['id']}")
    assert (after["state"], after["accepted_at"]) == ("cancelled", None), "the node never had it"

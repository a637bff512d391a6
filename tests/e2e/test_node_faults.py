"""Faults of the node itself, on real nodes (docs/faults.md): power, kills, full disks, a lost journal, hung services."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, php_version, wait_until
from tests.e2e.node_faults import (
    AGENT,
    EXECUTOR,
    STATE_DIR,
    SYSTEMCTL,
    change_site,
    drop_in,
    executor_fault,
    journal_rows,
    require_clean,
    rest_executor,
    served,
    shell,
    show,
    wait_until_died,
    wait_until_stopped,
)

HEAL_SECONDS = 90.0
words = (f"w{number}" for number in itertools.count())


@pytest.fixture
def site(fleet: Fleet, node: str) -> dict[str, Any]:
    """A PHP site that says which change it serves."""
    account = fleet.account(node)
    made = fleet.site(account, php_version=php_version(fleet.node(node)))
    fleet.api.wait(change_site(fleet, made, next(words))["id"])
    return {**made, "account": account}


# --- 4, 5, 6: power and kills ---------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", ["file.after_write:1", "file.after_rename:1", "config.before_reload:1"])
def test_fault_04_node_when_power_is_lost_in_a_vhost_write_has_the_old_or_the_new_one(
    fleet: Fleet, node: str, site: dict[str, Any], point: str
) -> None:
    """After the temporary file, after the rename and before the folder's sync, before nginx was told."""
    lose_power(fleet, node, site, point)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", ["transaction.before_commit:1", "transaction.after_commit:1"])
def test_fault_05_node_when_power_is_lost_between_effect_and_result_says_what_holds(
    fleet: Fleet, node: str, site: dict[str, Any], point: str
) -> None:
    lose_power(fleet, node, site, point)


def lose_power(fleet: Fleet, node: str, site: dict[str, Any], point: str) -> None:
    """The node dies at this moment of a change; whole files afterwards, and the change comes about."""
    before, after = served(fleet, node, site), next(words)
    with executor_fault(fleet, node, f"{point}:stop"):
        job = change_site(fleet, site, after)
        wait_until_stopped(fleet, node)
        fleet.lab.kill_node(node)
        fleet.lab.start_node(node)
    wait_until(lambda: fleet.run(node, "/usr/sbin/nginx", "-t").exit_code == 0, timeout_seconds=60, what="nginx -t")
    wait_until(lambda: is_served(fleet, node, site), timeout_seconds=60, what="the site is served again")
    assert served(fleet, node, site) in {before, after}

    assert fleet.ended(job["id"], timeout_seconds=HEAL_SECONDS)["state"] == "succeeded"
    assert served(fleet, node, site) == after
    require_clean(fleet, node)
    fleet.wait_ready(node)


def is_served(fleet: Fleet, node: str, site: dict[str, Any]) -> bool:
    argv = ("/usr/bin/curl", "--silent", "--fail", "--output", "/dev/null", "--header", f"Host: {site['domain']}")
    return fleet.run(node, *argv, "http://127.0.0.1/fault").exit_code == 0


KILLED_AT = (
    "job.before_journal",
    "job.after_journal",
    "database.before_commit:3",
    "transaction.after_begin",
    "step.after_begin",
    "step.after_apply",
    "config.after_stage",
    "config.after_file",
    "resource.after_verify",
    "transaction.before_commit",
    "transaction.after_commit",
)


@pytest.mark.timeout(600)
def test_fault_06_executor_when_killed_at_each_step_of_the_journal_comes_to_the_same_end(
    fleet: Fleet, node: str, site: dict[str, Any]
) -> None:
    for point in KILLED_AT:
        after = next(words)
        with executor_fault(fleet, node, point):
            job = change_site(fleet, site, after)
            wait_until_died(fleet, node, EXECUTOR)
        ended = fleet.ended(job["id"], timeout_seconds=HEAL_SECONDS)
        assert (ended["state"], served(fleet, node, site)) == ("succeeded", after), (point, ended["error"])
        require_clean(fleet, node)


AGENT_KILLED_AT = (
    "job.before_submit",
    "job.after_submit",
    "spool.before_commit",
    "spool.after_commit",
    "result.after_stored",
)


@pytest.mark.timeout(600)
def test_fault_06_agent_when_killed_at_each_step_of_its_spool_loses_no_result(
    fleet: Fleet, node: str, site: dict[str, Any]
) -> None:
    for point in AGENT_KILLED_AT:
        after = next(words)
        with drop_in(fleet, node, AGENT, f"[Service]\nEnvironment=WCP360_FAULT={point}\nRestartSec=1s\n"):
            shell(fleet, node, f"{SYSTEMCTL} restart {AGENT}")
            fleet.wait_ready(node)
            job = change_site(fleet, site, after)
            wait_until_died(fleet, node, AGENT)
        shell(fleet, node, f"{SYSTEMCTL} restart {AGENT}")
        ended = fleet.ended(job["id"], timeout_seconds=HEAL_SECONDS)
        assert (ended["state"], served(fleet, node, site)) == ("succeeded", after), (point, ended["error"])
    fleet.wait_ready(node)
    require_clean(fleet, node)


# --- 25: full disks -------------------------------------------------------------------------------------------------------

FILL = "dd if=/dev/zero of={folder}/filler bs=64k 2>/dev/null || true; test -s {folder}/filler"
FILL_INODES = (
    "i=0; mkdir {folder}/filler; while touch {folder}/filler/$i; do i=$((i+1)); done 2>/dev/null; test $i -gt 10"
)
SMALL_DISK = (
    "rm -rf /root/held; cp -a {folder} /root/held; mount -t tmpfs -o size={size},nr_inodes=400,mode=0700 small {folder};"
    " cp -a /root/held/. {folder}/"
)
LARGE_DISK = (
    "rm -rf {folder}/filler {folder}/.filler /root/held; cp -a {folder} /root/held; umount {folder};"
    " cp -a /root/held/. {folder}/; rm -rf /root/held"
)


@pytest.fixture
def small_state_disk(fleet: Fleet, node: str) -> Any:
    """The executor's state on a disk of its own, with room for little more than its reserve."""
    rest_executor(fleet, node)
    shell(fleet, node, SMALL_DISK.format(folder=STATE_DIR, size="40m"))
    yield
    rest_executor(fleet, node)
    shell(fleet, node, LARGE_DISK.format(folder=STATE_DIR))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fill", [FILL, FILL_INODES], ids=["bytes", "inodes"])
def test_fault_25_node_when_its_disk_is_full_refuses_jobs_with_the_reason_and_heals_by_itself(
    fleet: Fleet, node: str, site: dict[str, Any], small_state_disk: None, fill: str
) -> None:
    before, after = served(fleet, node, site), next(words)
    fleet.change("POST", f"/nodes/{fleet.node_id(node)}/ping")  # the reserve is made with the first job
    shell(fleet, node, fill.format(folder=STATE_DIR), timeout_seconds=120)

    refused = fleet.ended(change_site(fleet, site, after)["id"])

    assert (refused["state"], refused["error"]["code"]) == ("refused", "disk_full"), refused
    assert served(fleet, node, site) == before
    shell(fleet, node, f"rm -rf {STATE_DIR}/filler")
    wait_until(lambda: served(fleet, node, site) == after, timeout_seconds=HEAL_SECONDS, what="it heals by itself")
    require_clean(fleet, node)


@pytest.mark.timeout(300)
def test_fault_25_job_when_the_disk_fills_while_it_runs_ends_and_reports(
    fleet: Fleet, node: str, site: dict[str, Any], small_state_disk: None
) -> None:
    """The reserve is what the journal writes the end of it with."""
    fleet.change("POST", f"/nodes/{fleet.node_id(node)}/ping")
    with executor_fault(fleet, node, "step.after_apply:1:stop"):
        job = change_site(fleet, site, next(words))
        pid = wait_until_stopped(fleet, node)
        shell(fleet, node, FILL.format(folder=STATE_DIR), timeout_seconds=120)
        shell(fleet, node, f"kill -CONT {pid}")
        ended = fleet.ended(job["id"], timeout_seconds=HEAL_SECONDS)

    assert ended["state"] == "succeeded", ended
    assert fleet.run(node, "/usr/bin/test", "-e", f"{STATE_DIR}/reserve").exit_code != 0, "it was not needed"
    shell(fleet, node, f"rm {STATE_DIR}/filler")
    fleet.change("POST", f"/nodes/{fleet.node_id(node)}/ping")
    assert fleet.run(node, "/usr/bin/test", "-e", f"{STATE_DIR}/reserve/whole").exit_code == 0


@pytest.mark.timeout(300)
def test_fault_25_site_when_the_disk_of_its_configuration_is_full_keeps_the_old_one(
    fleet: Fleet, node: str, site: dict[str, Any]
) -> None:
    """A real ENOSPC in the middle of writing: no half file, the old site serves, and space back is enough."""
    folder, before, after = "/etc/nginx/wcp360/sites", served(fleet, node, site), next(words)
    rest_executor(fleet, node)
    shell(fleet, node, SMALL_DISK.format(folder=folder, size="512k"))
    try:
        shell(fleet, node, FILL.format(folder=folder).replace("filler", ".filler"))
        failed = fleet.ended(change_site(fleet, site, after)["id"])
        assert failed["state"] == "failed", failed
        assert "disk_full" in str(failed), failed
        assert served(fleet, node, site) == before
        require_clean(fleet, node)
        shell(fleet, node, f"rm {folder}/.filler")
        fleet.change("POST", f"/sites/{site['id']}/retry")
        assert served(fleet, node, site) == after
    finally:
        rest_executor(fleet, node)
        shell(fleet, node, LARGE_DISK.format(folder=folder))


# --- 29: the journal ------------------------------------------------------------------------------------------------------

DAMAGE = {
    "bits-flipped": "printf '\\377%.0s' $(seq 4096) | dd of=journal.db bs=1 seek=4096 conv=notrunc 2>/dev/null",
    "cut": "truncate -s 20000 journal.db",
    "noise": "head -c 60000 /dev/urandom > journal.db",
    "wiped": "rm -f journal.db journal.db-wal journal.db-shm",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("damage", DAMAGE)
def test_fault_29_journal_when_it_is_lost_begins_anew_and_everything_is_converged_again(
    fleet: Fleet, node: str, site: dict[str, Any], damage: str
) -> None:
    after = next(words)
    (epoch,) = journal_rows(fleet, node, "SELECT value FROM meta WHERE key = 'journal_epoch'")
    rest_executor(fleet, node)
    shell(fleet, node, f"{SYSTEMCTL} stop {AGENT}; rm -rf {STATE_DIR}/*.corrupt-*")
    job = change_site(fleet, site, after)
    shell(fleet, node, f"cd {STATE_DIR}; {DAMAGE[damage]}")

    shell(fleet, node, f"{SYSTEMCTL} start {AGENT}")

    fleet.wait_ready(node)
    fleet.ended(job["id"], timeout_seconds=HEAL_SECONDS)
    wait_until(lambda: is_converged(fleet, site), timeout_seconds=HEAL_SECONDS, what="the account is as wanted again")
    assert served(fleet, node, site) == after
    assert journal_rows(fleet, node, "SELECT value FROM meta WHERE key = 'journal_epoch'") != [epoch]
    aside = shell(fleet, node, f"ls {STATE_DIR}").split()
    assert any("corrupt" in name for name in aside) == (damage != "wiped"), aside
    require_clean(fleet, node)


def is_converged(fleet: Fleet, site: dict[str, Any]) -> bool:
    account = fleet.api.call("GET", f"/accounts/{site['account']['id']}")
    return bool(account["is_converged"])


# --- the watchdog ---------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(300)
def test_agent_when_it_hangs_is_restarted_by_systemd(fleet: Fleet, node: str) -> None:
    hasty = "[Service]\nWatchdogSec=3s\nTimeoutStopSec=2s\nTimeoutAbortSec=2s\nRestartSec=1s\n"
    with drop_in(fleet, node, AGENT, hasty):
        shell(fleet, node, f"{SYSTEMCTL} restart {AGENT}")
        fleet.wait_ready(node)
        pid = show(fleet, node, AGENT, "MainPID")

        shell(fleet, node, f"kill -STOP {pid}")

        wait_until_died(fleet, node, AGENT)
        assert show(fleet, node, AGENT, "MainPID") != pid
        fleet.wait_ready(node)
    shell(fleet, node, f"{SYSTEMCTL} restart {AGENT}")
    fleet.wait_ready(node)

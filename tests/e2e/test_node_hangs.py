"""Fault 33 on a real node: nginx, its validator, systemd and the bus hang, die or restart in the middle of a job."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.fleet import Fleet, php_version, wait_until
from tests.e2e.node_faults import (
    EXECUTOR,
    SYSTEMCTL,
    change_site,
    executor_fault,
    require_clean,
    rest_executor,
    served,
    shell,
    show,
    wait_until_stopped,
)

HEAL_SECONDS = 240.0


@pytest.fixture
def site(fleet: Fleet, node: str) -> dict[str, Any]:
    account = fleet.account(node)
    made = fleet.site(account, php_version=php_version(fleet.node(node)))
    fleet.api.wait(change_site(fleet, made, "first")["id"])
    return {**made, "account": account}


@pytest.mark.timeout(300)
def test_fault_33_site_when_nginx_is_stopped_is_put_back_with_a_reason_and_others_go_on(
    fleet: Fleet, node: str, site: dict[str, Any]
) -> None:
    """A master that does not listen takes no reload; the promise does not hold, so nothing of the change stays."""
    pid = show(fleet, node, "nginx.service", "MainPID")
    shell(fleet, node, f"kill -STOP {pid}")
    try:
        failed = fleet.ended(change_site(fleet, site, "second")["id"], timeout_seconds=HEAL_SECONDS)
        other = fleet.account(node)
    finally:
        shell(fleet, node, f"kill -CONT {pid}")

    assert (failed["state"], failed["error"]["code"]) == ("failed", "resources_parked"), failed
    assert "verify" in str(failed) or "second" not in str(served(fleet, node, site)), failed
    assert other["is_converged"] or fleet.api.call("GET", f"/accounts/{other['id']}")["is_converged"]
    wait_until(lambda: served(fleet, node, site) == "first", timeout_seconds=30, what="the old one serves")
    require_clean(fleet, node)
    fleet.change("POST", f"/sites/{site['id']}/retry")
    assert served(fleet, node, site) == "second"


@pytest.mark.timeout(600)
def test_fault_33_validator_when_it_never_ends_is_ended_and_the_lane_goes_on(
    fleet: Fleet, node: str, site: dict[str, Any]
) -> None:
    fleet.node(node).write_text("/root/hang", "#!/bin/sh\nsleep 100000 & wait\n", mode=0o755)
    rest_executor(fleet, node)
    shell(fleet, node, "mount --bind /root/hang /usr/sbin/nginx")
    try:
        job = change_site(fleet, site, "third")
        other = fleet.account(node)
        failed = fleet.ended(job["id"], timeout_seconds=HEAL_SECONDS)
        # Another one may have begun meanwhile (a reconvergence): each of them is ended in its time.
        wait_until(
            lambda: shell(fleet, node, "pgrep -f '[s]leep 100000' || true") == "",
            timeout_seconds=90,
            what="the validator's own child is gone, too",
        )
    finally:
        rest_executor(fleet, node)
        shell(fleet, node, "umount /usr/sbin/nginx")

    assert failed["state"] == "failed", failed
    assert "config_test_timeout" in str(failed), failed
    assert fleet.api.call("GET", f"/accounts/{other['id']}")["is_converged"], "an account without a site does not wait"
    assert served(fleet, node, site) == "first"
    fleet.change("POST", f"/sites/{site['id']}/retry")
    assert served(fleet, node, site) == "third"
    require_clean(fleet, node)


RESTARTS = {
    "systemd": f"{SYSTEMCTL} daemon-reexec",
    "bus": "kill -9 $(systemctl show --value --property MainPID dbus.service)",
    "php": "systemctl kill --signal=KILL 'wcp-php*.service' || true",
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", RESTARTS)
def test_fault_33_job_when_what_it_talks_to_restarts_comes_to_its_end(
    fleet: Fleet, node: str, site: dict[str, Any], what: str
) -> None:
    """Stopped right before its reload, and then everything behind that is another process than before."""
    with executor_fault(fleet, node, "config.before_reload:1:stop"):
        job = change_site(fleet, site, what)
        pid = wait_until_stopped(fleet, node)
        fleet.run(node, "/bin/sh", "-c", RESTARTS[what])
        shell(fleet, node, f"kill -CONT {pid}")
        ended = fleet.ended(job["id"], timeout_seconds=HEAL_SECONDS)

    assert (ended["state"], served(fleet, node, site)) == ("succeeded", what), ended["error"]
    require_clean(fleet, node)


@pytest.mark.timeout(300)
def test_fault_33_account_when_the_bus_restarts_under_it_comes_about(fleet: Fleet, node: str) -> None:
    """Again and again while units start and limits are set."""
    script = "for i in 1 2 3 4 5 6; do kill -9 $(systemctl show --value --property MainPID dbus.service) || true; sleep 1; done"
    fleet.run(node, "/usr/bin/systemd-run", "--collect", "--unit=bus-killer", "/bin/sh", "-c", script).check()

    for _ in range(3):
        account = fleet.account(node)
        made = fleet.site(account, php_version=php_version(fleet.node(node)))
        assert fleet.get(node, made["domain"]).status_code in {200, 403, 404}

    wait_until(
        lambda: show(fleet, node, "bus-killer.service", "ActiveState") == "inactive", timeout_seconds=60, what="it ends"
    )
    assert show(fleet, node, EXECUTOR, "ActiveState") in {"active", "inactive"}
    require_clean(fleet, node)

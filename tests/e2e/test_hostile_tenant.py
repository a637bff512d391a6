"""Fault 31: a tenant plays with links and names in its own home while root works there. Nothing of it leads anywhere else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.fleet import Fleet, php_version, wait_until
from tests.e2e.node_faults import require_clean, shell

ROUNDS = 8
DEEP_SECONDS = 120.0

# As the tenant: swaps folders for links to what is not its own, as fast as it can.
SWAP = r"""
import os, sys, time
folders, targets, end = sys.argv[1].split(","), sys.argv[2].split(","), time.time() + float(sys.argv[3])
number = 0
while time.time() < end:
    for folder in folders:
        for target in targets:
            number += 1
            try:
                if os.path.islink(folder) or not os.path.exists(folder):
                    os.rename(folder, folder + ".gone") if os.path.lexists(folder) else None
                    os.mkdir(folder)
                else:
                    os.rename(folder, folder + ".%d" % number)
                    os.symlink(target, folder)
            except OSError:
                pass
            for path in (folder + ".gone", folder + ".%d" % number):
                try:
                    os.unlink(path) if os.path.islink(path) else os.rmdir(path)
                except OSError:
                    pass
for folder in folders:
    if os.path.islink(folder):
        os.unlink(folder)
    os.makedirs(folder, exist_ok=True)
"""

# As the tenant: everything that a removal has to get through.
CLUTTER = r"""
import os, socket, sys
home = sys.argv[1]
os.chdir(home)
os.makedirs("many", exist_ok=True)
for number in range(100_000):
    open("many/%d" % number, "w").close()
os.mkfifo("fifo")
os.mkdir("line\nbreak")
open("line\nbreak/..\n..", "w").close()
open(b"\xff\xfe", "w").close()
open("-rf", "w").close()
os.symlink("/etc", "etc")
os.symlink("/etc/passwd", "sites/passwd")
os.link("fifo", "many/hard")
os.mkdir("locked")
open("locked/file", "w").close()
os.chmod("locked", 0)
peer = socket.socket(socket.AF_UNIX)
peer.bind("socket")
top = os.open(".", os.O_RDONLY)
for number in range(1500):
    os.mkdir("deep", dir_fd=top)
    top, last = os.open("deep", os.O_RDONLY, dir_fd=top), top
    os.close(last)
"""


def as_tenant(fleet: Fleet, node: str, account: str, program: str, *arguments: str, timeout_seconds: float) -> None:
    argv = ["/usr/sbin/runuser", "-u", account, "--", "/usr/bin/python3", "-P", "-", *arguments]
    fleet.node(node).run(argv, stdin=program.encode(), timeout_seconds=timeout_seconds).check()


def look(fleet: Fleet, node: str, victim: str) -> str:
    """What must not change: the system's files, and those of another tenant."""
    return shell(
        fleet,
        node,
        f"stat -c '%n %a %U %G' / /etc /etc/cron.d /root /srv /srv/accounts /etc/passwd /etc/shadow;"
        f" find /srv/accounts/{victim} /etc/cron.d /root -xdev -printf '%p %y %m %U %G %s\\n' | sort;"
        f" cat /srv/accounts/{victim}/secret",
    )


@pytest.mark.timeout(400)
def test_fault_31_tenant_when_it_swaps_folders_for_links_leads_nobody_anywhere(fleet: Fleet, node: str) -> None:
    victim, evil = fleet.account(node)["name"], fleet.account(node)
    fleet.write_as(node, victim, f"/srv/accounts/{victim}/secret", "mine")
    before = look(fleet, node, victim)
    name, home = evil["name"], f"/srv/accounts/{evil['name']}"
    site = fleet.site(evil, php_version=php_version(fleet.node(node)))
    folders = ",".join((f"{home}/tmp", f"{home}/sites/{site['domain']}/public", f"{home}/sites/{site['domain']}"))
    targets = ",".join(("/etc/cron.d", f"/srv/accounts/{victim}", "/root", "/nowhere"))
    fleet.node(node).write_text("/root/swap.py", SWAP, mode=0o644)
    shell(fleet, node, f"install -m 0644 /root/swap.py /srv/swap-{name}.py; rm /root/swap.py")
    unit, seconds = f"swap-{name}", "40"
    argv = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", f"--uid={name}", "/usr/bin/python3", "-P"]
    fleet.run(node, *argv, f"/srv/swap-{name}.py", folders, targets, seconds).check()

    jobs = [ask(fleet, evil, site, number) for number in range(ROUNDS)]

    ended = [fleet.ended(job, timeout_seconds=120) for job in jobs]
    assert {job["state"] for job in ended} <= {"succeeded", "failed", "superseded", "refused"}, ended
    assert look(fleet, node, victim) == before
    wait_until(
        lambda: fleet.run(node, "/usr/bin/systemctl", "is-active", unit).exit_code != 0, timeout_seconds=90, what="ends"
    )
    fleet.change("POST", f"/accounts/{evil['id']}/converge")
    require_clean(fleet, node)
    fleet.change("DELETE", f"/accounts/{evil['id']}?grace_days=0")
    assert look(fleet, node, victim) == before
    shell(fleet, node, f"rm -f /srv/swap-{name}.py")


def ask(fleet: Fleet, evil: dict[str, Any], site: dict[str, Any], number: int) -> str:
    """Root has to do something in the tenant's folders; the job's id."""
    if number % 2:
        answer = fleet.api.call("POST", f"/accounts/{evil['id']}/converge")
    else:
        body = {"account_id": evil["id"], "domain": f"round{number}.{site['domain']}"}
        answer = fleet.api.call("POST", "/sites", body)
    job_id: str = answer["jobs"][0]["id"]
    fleet.ended(job_id, timeout_seconds=120)
    return job_id


@pytest.mark.timeout(400)
def test_fault_31_tenant_when_its_home_is_full_of_traps_is_removed_in_bounded_time(fleet: Fleet, node: str) -> None:
    """100,000 files, pipes, line breaks, links, locked and deep folders; what they point to stays."""
    victim = fleet.account(node)["name"]
    fleet.write_as(node, victim, f"/srv/accounts/{victim}/secret", "mine")
    package = fleet.package("roomy", disk_bytes=2 * 1024**3)
    evil = fleet.account(node, package_id=package)
    before = look(fleet, node, victim)
    as_tenant(fleet, node, evil["name"], CLUTTER, f"/srv/accounts/{evil['name']}", timeout_seconds=120)

    fleet.change("POST", f"/accounts/{evil['id']}/converge")
    drift = fleet.api.call("POST", f"/accounts/{evil['id']}/drift-check")
    for job in drift.get("jobs", []):
        fleet.ended(job["id"], timeout_seconds=DEEP_SECONDS)
    job = fleet.api.call("DELETE", f"/accounts/{evil['id']}?grace_days=0")["jobs"][0]

    assert fleet.ended(job["id"], timeout_seconds=DEEP_SECONDS)["state"] == "succeeded"
    assert fleet.run(node, "/usr/bin/test", "-e", f"/srv/accounts/{evil['name']}").exit_code != 0
    assert look(fleet, node, victim) == before
    require_clean(fleet, node)

"""What a hosting customer gets, on real nodes of both distributions: served, limited, suspended, restored, gone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from wcplab import Completed

from tests.e2e.fleet import MIB, Fleet, php_version, wait_until

PAGE = "<?php echo 'hello ', posix_geteuid();"


@pytest.fixture(scope="module")
def hosted(fleet: Fleet) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """An account with a PHP site on each node."""
    made = {}
    for name in fleet.hosts:
        account = fleet.account(name)
        site = fleet.site(account, php_version=php_version(fleet.node(name)))
        path = f"/srv/accounts/{account['name']}/sites/{site['domain']}/public/index.php"
        fleet.write_as(name, account["name"], path, "<?php echo 'uid ', posix_geteuid(), ' ', PHP_VERSION;")
        made[name] = (account, site)
    return made


def cgroup_value(fleet: Fleet, node: str, uid: int, v1: tuple[str, str], v2: str) -> int:
    """A limit as the node's kernel has it, on either hierarchy."""
    controller, file_name = v1
    script = (
        f"cat /sys/fs/cgroup/{controller}/user.slice/user-{uid}.slice/{file_name} 2>/dev/null"
        f" || cat /sys/fs/cgroup/user.slice/user-{uid}.slice/{v2}"
    )
    return int(fleet.run(node, "/bin/sh", "-c", script).check().stdout.split()[0])


def processes_of(fleet: Fleet, node: str, name: str) -> list[str]:
    return fleet.run(node, "/usr/bin/pgrep", "-u", name).stdout.split()


def test_php_site_when_created_answers_as_its_own_user(fleet: Fleet, each_node: str, hosted: dict) -> None:
    account, site = hosted[each_node]

    answer = fleet.get(each_node, site["domain"])

    assert answer.status_code == 200
    assert answer.text.startswith(f"uid {account['uid']} {php_version(fleet.node(each_node))}")


def test_php_master_when_serving_runs_inside_the_accounts_slice(fleet: Fleet, each_node: str, hosted: dict) -> None:
    account, site = hosted[each_node]
    fleet.get(each_node, site["domain"])

    pids = processes_of(fleet, each_node, account["name"])
    groups = [fleet.run(each_node, "/usr/bin/cat", f"/proc/{pid}/cgroup").stdout for pid in pids]

    assert len(pids) >= 2
    assert all(f"user-{account['uid']}.slice" in group for group in groups if group)


def test_limits_when_account_created_are_the_kernels(fleet: Fleet, each_node: str, hosted: dict) -> None:
    account, _ = hosted[each_node]

    memory = cgroup_value(fleet, each_node, account["uid"], ("memory", "memory.limit_in_bytes"), "memory.max")
    processes = cgroup_value(fleet, each_node, account["uid"], ("pids", "pids.max"), "pids.max")
    quota = cgroup_value(fleet, each_node, account["uid"], ("cpu", "cpu.cfs_quota_us"), "cpu.max")

    assert (memory, processes, quota) == (256 * MIB, 60, 100_000)


def test_proofs_when_asked_say_what_the_kernel_enforces(fleet: Fleet, each_node: str, hosted: dict) -> None:
    account, _ = hosted[each_node]

    proofs = {item["limit"]: item for item in fleet.api.call("GET", f"/accounts/{account['id']}/proofs")["items"]}

    for limit, wanted in (
        ("memory_bytes", 256 * MIB),
        ("processes_max", 60),
        ("cpu_percent", 100),
        ("disk_bytes", 64 * MIB),
    ):
        assert proofs[limit]["wanted"] == proofs[limit]["enforced"] == wanted
        assert proofs[limit]["read_at"]


def test_memory_limit_when_the_tenant_takes_more_the_kernel_ends_it(fleet: Fleet, node: str, hosted: dict) -> None:
    account, site = hosted[node]

    modest = take_memory(fleet, node, account["uid"], 50)
    greedy = take_memory(fleet, node, account["uid"], 400)

    assert (modest.exit_code, modest.stdout.strip()) == (0, "survived"), modest.stderr
    assert greedy.exit_code != 0
    # Killed without a word: an allocation that was merely refused would have left a traceback.
    assert (greedy.stdout, "Traceback" in greedy.stderr) == ("", False), greedy.stderr
    wait_until(
        lambda: fleet.get(node, site["domain"]).status_code == 200, timeout_seconds=30, what="the site serves on"
    )


def take_memory(fleet: Fleet, node: str, uid: int, mebibytes: int) -> Completed:
    """A process of the account that writes to so much memory. Not PHP: its own memory_limit would stop it first."""
    program = f"x = b'x' * ({mebibytes} * 1024 * 1024); print('survived')"
    return fleet.run(
        node, "/usr/bin/systemd-run", "--quiet", "--wait", "--pipe", f"--uid={uid}", f"--slice=user-{uid}.slice",
        "/usr/bin/python3", "-c", program,
    )  # fmt: skip


def test_disk_quota_when_tenant_writes_more_is_enforced(fleet: Fleet, each_node: str, hosted: dict) -> None:
    account, _ = hosted[each_node]
    path = f"/srv/accounts/{account['name']}/tmp/big"
    argv = ["/usr/bin/dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=128"]

    result = fleet.run(each_node, "/usr/sbin/runuser", "-u", account["name"], "--", *argv)
    fleet.run(each_node, "/usr/bin/rm", "-f", path)

    assert result.exit_code != 0
    assert "quota" in result.stderr.lower() or "space" in result.stderr.lower()


def test_sleeping_account_when_idle_has_no_process_and_wakes(fleet: Fleet, hosted: dict) -> None:
    def awake() -> list[str]:
        return [name for name, (account, _) in hosted.items() if processes_of(fleet, name, account["name"])]

    for name, (_, site) in hosted.items():
        fleet.get(name, site["domain"])
    assert awake() == list(fleet.hosts)

    # On all nodes at once: it takes them more than a minute.
    wait_until(lambda: not awake(), timeout_seconds=240, what="the PHP masters sleep")

    assert {name: fleet.get(name, site["domain"]).status_code for name, (_, site) in hosted.items()} == dict.fromkeys(
        fleet.hosts, 200
    )


def test_tenants_when_reading_each_others_homes_are_refused(fleet: Fleet, node: str, hosted: dict) -> None:
    account, site = hosted[node]
    other = fleet.account(node)
    path = f"/srv/accounts/{account['name']}/sites/{site['domain']}/public/index.php"

    for argv in (["/usr/bin/cat", path], ["/usr/bin/ls", f"/srv/accounts/{account['name']}"]):
        result = fleet.run(node, "/usr/sbin/runuser", "-u", other["name"], "--", *argv)
        assert result.exit_code != 0
        assert "Permission denied" in result.stderr


def test_suspension_when_lifted_restores_exactly(fleet: Fleet, each_node: str) -> None:
    account = fleet.account(each_node)
    site = fleet.site(account, php_version=php_version(fleet.node(each_node)))
    home = f"/srv/accounts/{account['name']}"
    fleet.write_as(each_node, account["name"], f"{home}/sites/{site['domain']}/public/index.php", PAGE)
    # A process of the tenant that would go on by itself, as a login or a cron job leaves behind.
    fleet.run(
        each_node, "/usr/bin/systemd-run", f"--uid={account['uid']}", f"--slice=user-{account['uid']}.slice",
        "--unit", f"stray-{account['name']}", "/usr/bin/sleep", "600",
    ).check()  # fmt: skip
    before = describe(fleet, each_node, account["name"], site["domain"])
    assert fleet.get(each_node, site["domain"]).text == f"hello {account['uid']}"

    fleet.change("POST", f"/accounts/{account['id']}/suspend", {"reason": "unpaid"})

    answer = fleet.get(each_node, site["domain"])
    assert answer.status_code == 503
    assert "not available at the moment" in answer.text
    assert "unpaid" not in answer.text
    assert processes_of(fleet, each_node, account["name"]) == []
    shadow = fleet.run(each_node, "/usr/bin/getent", "shadow", account["name"]).stdout.split(":")
    assert shadow[1].startswith("!")
    assert shadow[7] == "1", "an expired account refuses SSH keys and cron too"

    fleet.change("POST", f"/accounts/{account['id']}/unsuspend")

    assert fleet.get(each_node, site["domain"]).text == f"hello {account['uid']}"
    assert describe(fleet, each_node, account["name"], site["domain"]) == before


def describe(fleet: Fleet, node: str, name: str, domain: str) -> str:
    """Everything of the account that suspension might touch: files, vhost, user."""
    script = (
        f"find /srv/accounts/{name} /etc/nginx/wcp360 -printf '%p %u %g %m %s\\n' | grep -v '/tmp/' | sort;"
        f"cat /etc/nginx/wcp360/sites/{domain}.conf; getent passwd {name}; getent shadow {name} | cut -d: -f1,2,8"
    )
    return fleet.run(node, "/bin/sh", "-c", script).check().stdout


def test_account_when_deleted_leaves_nothing(fleet: Fleet, each_node: str) -> None:
    account = fleet.account(each_node)
    site = fleet.site(account, php_version=php_version(fleet.node(each_node)))
    assert fleet.get(each_node, site["domain"]).status_code == 200

    answer = fleet.api.call("DELETE", f"/accounts/{account['id']}?grace_days=0")
    for job in answer["jobs"]:
        fleet.api.wait(job["id"])

    name, uid = account["name"], account["uid"]
    script = (
        f"getent passwd {name} {uid}; ls -d /srv/accounts/{name}; find / -xdev \\( -user {uid} -o -group {uid} \\) 2>/dev/null;"
        f"grep -rl -e '{name}' -e '{site['domain']}' /etc --include='*' 2>/dev/null | grep -v '^/etc/.*-$';"
        f"ls -d /etc/systemd/system.control/user-{uid}.slice.d /run/wcp-php/*/{uid}.sock; pgrep -u {uid}"
    )
    assert fleet.run(each_node, "/bin/sh", "-c", script).stdout == ""
    assert fleet.get(each_node, site["domain"]).status_code == 404
    assert fleet.api.find("sites", site["domain"]) is None


def test_symlink_when_pointing_at_another_tenant_is_not_served(fleet: Fleet, node: str, hosted: dict) -> None:
    account, site = hosted[node]
    victim = fleet.account(node)
    victim_site = fleet.site(victim)
    secret = f"/srv/accounts/{victim['name']}/sites/{victim_site['domain']}/public/secret.txt"
    fleet.write_as(node, victim["name"], secret, "secret")
    link = f"/srv/accounts/{account['name']}/sites/{site['domain']}/public/stolen.txt"
    fleet.run(node, "/usr/sbin/runuser", "-u", account["name"], "--", "/usr/bin/ln", "-s", secret, link).check()

    assert fleet.get(node, victim_site["domain"], "/secret.txt").text == "secret"
    stolen = fleet.get(node, site["domain"], "/stolen.txt")
    assert stolen.text != "secret"
    plain = fleet.site(account)
    fleet.run(
        node, "/usr/sbin/runuser", "-u", account["name"], "--", "/usr/bin/ln", "-s", secret,
        f"/srv/accounts/{account['name']}/sites/{plain['domain']}/public/stolen.txt",
    ).check()  # fmt: skip
    assert fleet.get(node, plain["domain"], "/stolen.txt").status_code in (403, 404)


def test_site_when_others_change_loses_no_request(fleet: Fleet, node: str, hosted: dict) -> None:
    account, site = hosted[node]
    root = f"/srv/accounts/{account['name']}/sites/{site['domain']}/public"
    fleet.write_as(node, account["name"], f"{root}/slow.php", "<?php sleep(6); echo 'finished';")
    master = fleet.run(node, "/usr/bin/systemctl", "show", "-P", "MainPID", "nginx.service").stdout
    seen: list[int] = []
    is_over = threading.Event()

    def visit() -> None:
        while not is_over.is_set():
            seen.append(fleet.get(node, site["domain"]).status_code)

    with ThreadPoolExecutor() as pool:
        slow = pool.submit(fleet.get, node, site["domain"], "/slow.php")
        visitors = [pool.submit(visit) for _ in range(2)]
        other = fleet.account(node)
        for _ in range(5):
            changed = fleet.site(other)
            fleet.change("PATCH", f"/sites/{changed['id']}", {"extra_directives": "add_header X-Changed yes;"})
        is_over.set()
        for visitor in visitors:
            visitor.result()
        assert slow.result().text == "finished"

    assert len(seen) > 20
    assert set(seen) == {200}
    assert fleet.run(node, "/usr/bin/systemctl", "show", "-P", "MainPID", "nginx.service").stdout == master

"""The one line that makes a bare Debian a node: once, twice, wrongly, by hand approval, and away again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from wcplab import Completed

from tests.e2e.fleet import INSTALL_TIMEOUT_SECONDS, Fleet, wait_until

NOT_OURS = (
    # What Debian's own packages and a running system leave behind: none of it is the agent's.
    "/var/log", "/var/lib/apt", "/var/lib/dpkg", "/var/lib/systemd", "/var/cache", "/tmp", "/var/tmp", "/etc/machine-id",
    "/var/lib/private", "/var/lib/dbus", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-",
    "/etc/subuid-", "/etc/subgid-",
)  # fmt: skip


@pytest.fixture(params=["bookworm", "trixie"], ids=["debian12", "debian13"])
def bare_node(fleet: Fleet, request: pytest.FixtureRequest) -> Iterator[str]:
    """A third and a fourth node, fresh for each test."""
    fleet.lab.up(4, suites=["bookworm", "trixie"])
    name = f"{fleet.lab.name}-{3 if request.param == 'bookworm' else 4}"
    fleet.lab.reset_node(name)
    yield name
    found = fleet.api.find("nodes", name)
    if found:
        fleet.api.call("POST", f"/nodes/{found['id']}/revoke")
        fleet.api.call("DELETE", f"/nodes/{found['id']}")


def paste(fleet: Fleet, node: str, command: str) -> Completed:
    return fleet.run(node, "/bin/sh", "-c", command, timeout_seconds=INSTALL_TIMEOUT_SECONDS)


def files_of(fleet: Fleet, node: str) -> set[str]:
    argv = ["/usr/bin/find", "/", "-xdev", "-not", "-type", "d", "-printf", "%p %u %m\n"]
    lines = fleet.run(node, *argv).check().stdout.splitlines()
    return {line for line in lines if not line.startswith(NOT_OURS)}


def is_settled(fleet: Fleet, name: str) -> bool:
    """Connected, and no job of the node is on its way."""
    node = fleet.api.find("nodes", name)
    if node is None or not node["is_connected"]:
        return False
    jobs = fleet.api.call("GET", f"/jobs?node_id={node['id']}")["items"]
    return all(job["is_final"] for job in jobs)


def has_seen_audit(fleet: Fleet, node: str) -> bool:
    return fleet.run(node, "/usr/bin/test", "-s", "/var/lib/wcp360-agent/audit-record.jsonl").exit_code == 0


def test_install_when_run_twice_changes_nothing_and_uninstall_leaves_nothing(fleet: Fleet, bare_node: str) -> None:
    # python3 is Debian's and stays; with it there from the start, the comparison is about our files only.
    fleet.run(
        bare_node, "/bin/sh", "-c", "DEBIAN_FRONTEND=noninteractive apt-get install -y -q python3 curl ca-certificates",
        timeout_seconds=INSTALL_TIMEOUT_SECONDS,
    ).check()  # fmt: skip
    before = files_of(fleet, bare_node)
    users_before = fleet.node(bare_node).read_text("/etc/passwd")

    # The role decides which modules follow; this one brings no service whose packages would change while we compare.
    first = paste(fleet, bare_node, fleet.install_command(bare_node, roles=["backup"]))
    assert first.exit_code == 0, first.stdout + first.stderr
    wait_until(lambda: is_settled(fleet, bare_node), timeout_seconds=60, what="the node's first manifest")
    # A node remembers what it was shown of the audit log, some seconds after it connected.
    wait_until(lambda: has_seen_audit(fleet, bare_node), timeout_seconds=120, what="the node's first audit checkpoint")
    installed = files_of(fleet, bare_node)
    second = paste(fleet, bare_node, fleet.install_command(bare_node, roles=["backup"]))
    assert second.exit_code == 0, second.stdout + second.stderr
    assert files_of(fleet, bare_node) - installed == set()

    removed = paste(fleet, bare_node, "PYTHONPATH=/opt/wcp360/current python3 -P -m agent uninstall")
    assert removed.exit_code == 0, removed.stdout + removed.stderr
    left = {line for line in files_of(fleet, bare_node) - before if "/wcp" in line}
    assert left == set()
    assert fleet.node(bare_node).read_text("/etc/passwd") == users_before
    units = fleet.run(bare_node, "/usr/bin/systemctl", "list-units", "--all", "--plain").check().stdout
    assert [name for name in ("wcp-agent", "wcp-executor", "wcp-php") if name in units] == []


def test_install_when_token_was_used_says_so(fleet: Fleet, bare_node: str) -> None:
    command = fleet.install_command("spent")
    assert paste(fleet, fleet.lab.nodes[0].name, command).exit_code == 0, "a healthy node keeps its identity"
    spent = fleet.install_command(f"{bare_node}-x")
    secret = re.search(r"WCP360_TOKEN='([^']+)'", spent)
    assert secret is not None
    tokens = fleet.api.call("GET", "/enrolment-tokens")["items"]
    token = next(item for item in tokens if item["name"] == f"{bare_node}-x")
    fleet.api.call("DELETE", f"/enrolment-tokens/{token['id']}")

    result = paste(fleet, bare_node, spent)

    assert result.exit_code == 21, result.stdout + result.stderr
    assert "token" in result.stderr
    assert "Traceback" not in result.stderr


def test_install_when_pin_is_wrong_runs_nothing(fleet: Fleet, bare_node: str) -> None:
    command = re.sub(r"sha256//.{43}=", "sha256//" + "A" * 43 + "=", fleet.install_command(bare_node))

    result = paste(fleet, bare_node, command)

    assert "pinned" in result.stderr.lower() or "public key" in result.stderr.lower()
    assert fleet.run(bare_node, "/usr/bin/test", "-e", "/opt/wcp360").exit_code != 0


def test_install_when_system_is_unsupported_changes_nothing(fleet: Fleet, bare_node: str) -> None:
    fleet.run(bare_node, "/bin/sh", "-c", "rm /etc/os-release; printf 'ID=plan9\\nVERSION_ID=4\\n' > /etc/os-release")

    result = paste(fleet, bare_node, fleet.install_command(bare_node))

    assert result.exit_code == 11, result.stderr
    assert "plan9" in result.stderr
    assert fleet.run(bare_node, "/usr/bin/test", "-e", "/opt/wcp360").exit_code != 0


def test_install_when_approval_is_manual_waits_and_shows_the_same_words(fleet: Fleet, bare_node: str) -> None:
    command = fleet.install_command(bare_node, approval="manual")
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(paste, fleet, bare_node, command)
        node = wait_until(
            lambda: (found := fleet.api.find("nodes", bare_node)) and found["state"] == "pending" and found,
            timeout_seconds=90,
            what="the node waits for approval",
        )
        fleet.api.call("POST", f"/nodes/{node['id']}/approve")
        result = waiting.result(timeout=INSTALL_TIMEOUT_SECONDS)

    assert result.exit_code == 0, result.stdout + result.stderr
    assert node["fingerprint_words"] in result.stdout + result.stderr


@pytest.mark.parametrize(("unit", "bar"), [("wcp-agent.service", 2.0), ("wcp-executor.service", 4.5)])
def test_units_when_judged_by_systemd_are_hardened(fleet: Fleet, each_node: str, unit: str, bar: float) -> None:
    output = fleet.run(each_node, "/usr/bin/systemd-analyze", "security", "--no-pager", unit).stdout
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", output)

    assert exposure is not None, output[-500:]
    assert float(exposure.group(1)) <= bar, output


def test_network_facing_process_when_looked_at_has_no_privilege(fleet: Fleet, each_node: str) -> None:
    pid = fleet.run(each_node, "/usr/bin/systemctl", "show", "-P", "MainPID", "wcp-agent.service").stdout.strip()
    status = fleet.run(each_node, "/usr/bin/cat", f"/proc/{pid}/status").stdout

    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert values["Uid"].split()[0] != "0"
    assert {values[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert values["NoNewPrivs"].strip() == "1"


def test_executor_when_idle_ends_and_has_no_network_when_awake(fleet: Fleet, node: str) -> None:
    fleet.api.wait(fleet.api.call("POST", f"/nodes/{fleet.node_id(node)}/ping")["jobs"][0]["id"])
    pid = fleet.run(node, "/usr/bin/systemctl", "show", "-P", "MainPID", "wcp-executor.service").stdout.strip()
    if pid != "0":
        links = fleet.run(node, "/usr/bin/nsenter", "-t", pid, "-n", "/usr/sbin/ip", "-o", "link").stdout
        assert [line.split(":")[1].strip() for line in links.splitlines()] == ["lo"]

    def is_gone() -> bool:
        show = fleet.run(node, "/usr/bin/systemctl", "show", "-P", "MainPID", "wcp-executor.service")
        return show.stdout.strip() == "0"

    wait_until(is_gone, timeout_seconds=120, what="the idle executor has ended")

"""The controller as it is installed: by the script, under systemd's real sandboxes, whole and then taken apart.

One Debian for all of it, in the order in which an installation grows: one process on SQLite, one on PostgreSQL, then a
process for each part. What a step needs is made by its fixture, from the commands of docs/operations.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from api import Api
from wcplab import Lab

from tests.e2e.controller_node import DATA, REPOSITORY, SOURCES, WHEELS, ControllerNode, own_lab_name, ping
from tests.e2e.fleet import INSTALL_TIMEOUT_SECONDS, wait_until

PARTS = ("wcp-signer", "wcp-api@1", "wcp-api@2", "wcp-gateway@1", "wcp-gateway@2", "wcp-worker@1")
EXPOSURE_MAX = {"wcpd": 1.2, "wcp-migrate": 1.2, **dict.fromkeys(PARTS, 1.2), "wcp-signer": 0.5}
"""Of systemd's scale from 0 to 10. Measured on Debian 12: 1.1, and 0.4 for the signer, which has no network. What is left
of the others is what they are there for: sockets of the internet, from everywhere, and a user that is not made anew at
each start because it owns the database. One switch that is lost costs at least 0.1."""
NEXT_RELEASE = "99.0.0"
PASSWORD = "not-in-any-argument"


@pytest.fixture(scope="module")
def host(machine: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControllerNode]:
    """The controller's machine, bare, and two that will be its nodes."""
    lab = Lab(own_lab_name(), progress=lambda _line: None)
    lab.down()
    lab.up(3, suites=["bookworm"])
    host = ControllerNode(lab=lab, node=lab.nodes[0], folder=tmp_path_factory.mktemp("controller"))
    host.push_release()
    yield host
    lab.down()


@pytest.fixture(scope="module")
def one(host: ControllerNode) -> ControllerNode:
    """Installed and started as one process."""
    write_settings(host)
    done = host.install("--start", "one")
    assert done.exit_code == 0, done.stdout + done.stderr
    return host


@pytest.fixture(scope="module")
def api_on_postgresql(one: ControllerNode) -> Api:
    """Still one process, now on PostgreSQL; its first node is there."""
    one.shell(
        """
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -y -q --no-install-recommends postgresql redis-server
        cd /
        runuser -u postgres -- createuser wcp360
        runuser -u postgres -- createdb -O wcp360 -E UTF8 -T template0 wcp360
        """
    )
    write_settings(one, 'database_url = "postgresql+asyncpg://wcp360@/wcp360?host=/run/postgresql"')
    one.run("/usr/bin/systemctl", "restart", "wcpd")
    one.forget_admin()
    api = one.sign_in()
    ping(api, one.enrol(api, f"{one.lab.name}-2")["id"])
    return api


@pytest.fixture(scope="module")
def split(one: ControllerNode, api_on_postgresql: Api) -> ControllerNode:
    """The same controller in several processes: docs/operations/scale-out.md, "Coming from `wcpd run`"."""
    one.node.run(["/usr/sbin/runuser", "-u", "postgres", "--", "/usr/bin/psql", "-q"], stdin=_SET_PASSWORD).check()
    write_settings(
        one,
        f'controller_url = "https://{one.node.name}:8360"',
        f'gateway_url = "wss://{one.node.name}:8443/agent/v1"',
        'broker = "redis"',
    )
    one.node.write_text(
        "/etc/wcp360/controller.env",
        f"WCP360_DATABASE_URL=postgresql+asyncpg://wcp360:{PASSWORD}@127.0.0.1/wcp360\n"
        "WCP360_REDIS_URL=redis://127.0.0.1:6379/0\n",
        mode=0o600,
    )
    one.node.write_text("/etc/wcp360/api-2.env", "WCP360_API_PORT=8361\n", mode=0o600)
    one.node.write_text("/etc/wcp360/gateway-2.env", "WCP360_GATEWAY_PORT=8444\n", mode=0o600)
    one.shell(
        f"""
        systemctl disable --now wcpd
        mv {DATA}/pki /var/lib/wcp360-signer/pki
        install -d -m 700 -o wcp360 -g wcp360 {DATA}/tls
        mv /var/lib/wcp360-signer/pki/server.key /var/lib/wcp360-signer/pki/server.pem {DATA}/tls/
        chown -R wcp360-signer /var/lib/wcp360-signer/pki
        systemctl start wcp-migrate
        systemctl enable --now {" ".join(PARTS)} wcp360.target
        """
    )
    return one


_SET_PASSWORD = f"ALTER ROLE wcp360 PASSWORD '{PASSWORD}';\n".encode()


def write_settings(host: ControllerNode, *lines: str) -> None:
    names = f'public_names = ["{host.node.name}", "{host.node.address}"]'
    host.node.write_text("/etc/wcp360/controller.toml", "\n".join((names, *lines, "")))


def files_of(host: ControllerNode) -> set[str]:
    """All that an installation is made of: owners and modes, and of what is no folder times and targets."""
    folders = ["/opt/wcp360-controller", "/etc", "/usr/local", f"{DATA}/bundles", f"{DATA}/pki"]
    look = ["-type", "d", "-printf", "%p %u %m\\n", "-o", "-printf", "%p %u %m %T@ %l\\n"]
    return set(host.run("/usr/bin/find", *folders, *look).splitlines())


def version_of(host: ControllerNode) -> str:
    return host.run("/usr/local/bin/wcpd", "--version").strip()


def command_of(host: ControllerNode, unit: str) -> str:
    return host.node.read_text(f"/proc/{host.pid(unit)}/cmdline")


def ping_again(host: ControllerNode, api: Api) -> None:
    """The node that enrolled when its controller was one process."""
    node = api.find("nodes", f"{host.lab.name}-2")
    assert node is not None
    ping(api, node["id"])


def test_install_on_a_bare_machine_leaves_a_controller_that_serves(one: ControllerNode) -> None:
    assert one.is_active("wcpd")
    assert one.show("wcpd", "Type") == "notify"
    status = one.node.read_text(f"/proc/{one.pid('wcpd')}/status")
    values = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert {values[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert values["Uid"].split()[0] != "0"

    assert one.sign_in().call("GET", "/auth/me")["username"] == "admin"


def test_wcpd_commands_when_run_as_documented_have_the_settings_of_the_service(one: ControllerNode) -> None:
    document = (REPOSITORY / "docs/operations/controller.md").read_text()
    command = re.search(r"^systemd-run .* wcpd check$", document, re.MULTILINE)
    assert command is not None

    assert f"ok: {DATA} is private and writable" in one.shell(command.group(0))


def test_install_when_run_again_changes_nothing(one: ControllerNode) -> None:
    before, pid = files_of(one), one.pid("wcpd")

    done = one.install("--start", "one")

    assert done.exit_code == 0, done.stderr
    assert files_of(one) == before
    assert one.pid("wcpd") == pid
    assert "Everything that runs is of this release." in done.stdout


@pytest.mark.parametrize("unit", sorted(EXPOSURE_MAX))
def test_unit_when_judged_by_the_systemd_it_runs_under_is_hardened(one: ControllerNode, unit: str) -> None:
    output = one.run("/usr/bin/systemd-analyze", "security", "--no-pager", f"{unit}.service")

    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", output)
    assert exposure is not None, output[-500:]
    assert float(exposure.group(1)) <= EXPOSURE_MAX[unit], output


def test_wcpd_when_restarted_and_when_killed_serves_again(one: ControllerNode) -> None:
    api = one.sign_in()
    before = one.pid("wcpd")

    one.run("/usr/bin/systemctl", "restart", "wcpd")
    assert one.pid("wcpd") != before
    assert api.call("GET", "/auth/me")["username"] == "admin"
    one.kill_unit("wcpd")
    assert api.call("GET", "/auth/me")["username"] == "admin"


def test_install_when_arguments_are_wrong_says_so_and_changes_nothing(one: ControllerNode) -> None:
    before = files_of(one)

    results = [one.install("--start", "two"), one.install("--wheels", "/nowhere"), one.install("--frobnicate")]

    assert [result.exit_code for result in results] == [2, 2, 2]
    assert all("error: " in result.stderr for result in results)
    assert files_of(one) == before


def test_install_when_a_library_is_not_what_the_lock_says_leaves_everything_alone(one: ControllerNode) -> None:
    before, pid = files_of(one), one.pid("wcpd")
    one.run("/bin/cp", "-a", SOURCES, "/root/forged")
    one.run("/bin/sed", "-i", "s/sha256:..../sha256:0000/", "/root/forged/packaging/controller/requirements.lock")

    argv = ["/root/forged/packaging/controller/install", "--wheels", WHEELS]
    done = one.node.run(argv, timeout_seconds=INSTALL_TIMEOUT_SECONDS)

    assert done.exit_code == 13, done.stdout + done.stderr
    assert "hash" in done.stderr.lower()
    assert (files_of(one), one.pid("wcpd")) == (before, pid)


def test_split_when_booted_by_systemd_every_part_serves(split: ControllerNode) -> None:
    failed = [unit for unit in PARTS if not split.is_active(unit)]

    assert failed == [], split.journal(failed)
    assert not split.is_active("wcpd")
    for port in (8360, 8361):
        assert split.sign_in(authority="/var/lib/wcp360-signer/pki/ca.pem", port=port).is_ready()
    for unit in PARTS[3:]:
        ready = split.node.read_text(f"{DATA}/{unit.removeprefix('wcp-').replace('@', '-')}.ready")
        split.run("/usr/bin/curl", "-fsS", f"http://127.0.0.1:{json.loads(ready)['api_port']}/readyz")


def test_keys_when_split_are_the_signers_alone(split: ControllerNode) -> None:
    keys = split.run("/usr/bin/find", "/var/lib/wcp360-signer", "-name", "*.key", "-printf", "%p %u %m\\n").splitlines()

    assert {line.split(" ", 1)[1] for line in keys} == {"wcp360-signer 600"}
    assert any("/root.key" in line for line in keys)
    for line in keys:
        tried = split.node.run(["/usr/sbin/runuser", "-u", "wcp360", "--", "/bin/cat", line.split()[0]])
        assert tried.exit_code != 0
    others = split.run("/usr/bin/find", DATA, "/etc/wcp360", "-name", "*.key").splitlines()
    assert others == [f"{DATA}/tls/server.key"]
    # Root in the signer's own view of the file system: what is none of its business is not there.
    view = ["/usr/bin/nsenter", "-t", str(split.pid("wcp-signer")), "-m"]
    assert split.run(*view, "/usr/bin/find", DATA, "/etc/wcp360", "-type", "f") == ""


def test_passwords_when_split_are_in_no_argument_and_for_root_alone(split: ControllerNode) -> None:
    arguments = split.shell("cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' || true")

    assert "wcpd gateway" in arguments
    assert PASSWORD not in arguments
    assert split.run("/usr/bin/stat", "-c", "%U %a", "/etc/wcp360/controller.env").strip() == "root 600"


def test_node_when_its_controller_was_taken_apart_is_still_there(split: ControllerNode, api_on_postgresql: Api) -> None:
    ping_again(split, api_on_postgresql)


def test_node_when_it_enrols_at_the_parts_gets_signed_jobs(split: ControllerNode, api_on_postgresql: Api) -> None:
    node = split.enrol(api_on_postgresql, f"{split.lab.name}-3")

    ping(api_on_postgresql, node["id"])


@pytest.mark.parametrize("unit", ["wcp-signer", "wcp-api@1", "wcp-gateway@1", "wcp-worker@1"])
def test_part_when_killed_is_started_again_and_jobs_go_on(
    split: ControllerNode, api_on_postgresql: Api, unit: str
) -> None:
    split.kill_unit(unit)

    ping_again(split, api_on_postgresql)


def test_upgrade_when_installed_waits_for_restarts_and_says_their_order(
    split: ControllerNode, api_on_postgresql: Api
) -> None:
    before, pids = version_of(split), {unit: split.pid(unit) for unit in PARTS}
    split.node.write_text(f"{SOURCES}/shared/version.py", f'"""The version."""\n\n__version__ = "{NEXT_RELEASE}"\n')

    refused = split.install("--no-bundle", "--start", "one")
    done = split.install("--no-bundle")

    assert refused.exit_code == 15, refused.stdout + refused.stderr
    assert done.exit_code == 0, done.stdout + done.stderr
    assert version_of(split) == NEXT_RELEASE
    assert {unit: split.pid(unit) for unit in PARTS} == pids
    assert all(f"/versions/{before}-" in command_of(split, unit) for unit in PARTS)
    units = ["wcp-signer", "wcp-worker@1", "wcp-api@1", "wcp-api@2", "wcp-gateway@1", "wcp-gateway@2"]
    wanted = ["systemctl start wcp-migrate", *(f"systemctl restart {unit}.service" for unit in units)]
    assert re.findall(r"^  (systemctl .*)$", done.stdout, re.MULTILINE) == wanted
    for command in wanted:
        split.run("/usr/bin/env", *command.split())
    assert all(f"/versions/{NEXT_RELEASE}-" in command_of(split, unit) for unit in PARTS)
    assert "Everything that runs is of this release." in split.install("--no-bundle").stdout
    ping_again(split, api_on_postgresql)


def test_split_when_the_machine_lost_its_power_is_back_after_the_boot(
    split: ControllerNode, api_on_postgresql: Api
) -> None:
    split.lab.kill_node(split.node.name)
    split.lab.start_node(split.node.name)

    wait_until(lambda: all(map(split.is_active, PARTS)), timeout_seconds=90, what="all parts after the boot")
    ping_again(split, api_on_postgresql)

"""SSH of accounts on real nodes: in by a known key and into the slice, out without one, whatever lies in the home."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.fleet import Fleet

SSH_TIMEOUT_SECONDS = 30.0


@dataclass
class Login:
    """An account with SSH, and a key pair of the test."""

    fleet: Fleet
    node: str
    account: dict[str, Any]
    site: dict[str, Any]
    key_file: Path
    key: dict[str, Any]

    @property
    def options(self) -> list[str]:
        return [
            *("-i", str(self.key_file), "-F", "none"),
            *(f"-o{option}" for option in (
                "BatchMode=yes", "IdentitiesOnly=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null",
                "ConnectTimeout=10", "LogLevel=ERROR", "ControlMaster=no",
            )),
        ]  # fmt: skip

    @property
    def target(self) -> str:
        return f"{self.account['name']}@{self.fleet.node(self.node).address}"

    def ssh(self, command: str, *more: str) -> subprocess.CompletedProcess[str]:
        argv = ["ssh", *self.options, *more, self.target, command]
        return subprocess.run(
            argv, check=False, capture_output=True, text=True, timeout=SSH_TIMEOUT_SECONDS, stdin=subprocess.DEVNULL
        )

    def is_refused(self) -> bool:
        answer = self.ssh("true")
        return answer.returncode == 255

    def is_let_in(self) -> bool:
        answer = self.ssh("true")
        assert answer.returncode in (0, 255), answer.stderr
        return answer.returncode == 0


def make_key(folder: Path, name: str) -> Path:
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "e2e", "-f", str(path)], check=True)
    return path


@pytest.fixture
def login(fleet: Fleet, each_node: str, tmp_path: Path) -> Iterator[Login]:
    account = fleet.account(each_node, package_id=fleet.package(f"with-ssh{next(fleet.numbers)}", flags={"ssh": True}))
    site = fleet.site(account)
    path = make_key(tmp_path, "key")
    body = {"account_id": account["id"], "name": "e2e", "public_key": path.with_suffix(".pub").read_text()}
    key = fleet.change("POST", "/ssh-keys", body)
    yield Login(fleet, each_node, account, site, path, key)
    fleet.change("DELETE", f"/accounts/{account['id']}")


def test_login_when_key_is_known_is_the_tenant_in_its_slice(login: Login) -> None:
    uid = login.account["uid"]

    answer = login.ssh("id -u; cat /proc/self/cgroup; pwd")

    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0] == str(uid)
    assert lines[-1] == f"/srv/accounts/{login.account['name']}"
    groups = [line for line in lines[1:-1] if "/" in line.rpartition(":")[2] and line.rpartition(":")[2] != "/"]
    assert any(f"user-{uid}.slice" in line for line in groups), groups
    assert not any("ssh.service" in line for line in groups), groups


def test_login_when_key_is_deleted_is_refused(login: Login) -> None:
    assert login.is_let_in()

    login.fleet.change("DELETE", f"/ssh-keys/{login.key['id']}")

    assert login.is_refused()
    shell = login.fleet.run(login.node, "/usr/bin/getent", "passwd", login.account["name"]).stdout.strip()
    assert shell.endswith(":/usr/sbin/nologin")


def test_login_when_package_loses_the_feature_is_refused_until_it_has_it_again(login: Login) -> None:
    without = login.fleet.package("without-ssh", flags={"ssh": False})
    path = f"/accounts/{login.account['id']}"
    before = login.fleet.api.call("GET", path)["package_id"]

    login.fleet.change("PATCH", path, {"package_id": without})
    assert login.is_refused()

    login.fleet.change("PATCH", path, {"package_id": before})
    assert login.is_let_in()


def test_login_when_package_gets_strict_is_refused_until_it_is_standard_again(login: Login) -> None:
    path = f"/packages/{login.account['package_id']}"

    def restrict(word: str) -> None:
        for job in login.fleet.api.call("PATCH", path, {"security": {"process_restrictions": word}})["jobs"]:
            assert login.fleet.ended(job["id"])["state"] == "succeeded"

    restrict("strict")
    assert login.is_refused()
    shell = login.fleet.run(login.node, "/usr/bin/getent", "passwd", login.account["name"]).stdout.strip()
    assert shell.endswith(":/usr/sbin/nologin")

    restrict("standard")
    assert login.is_let_in()


def test_login_when_account_is_suspended_is_refused_until_it_is_restored(login: Login) -> None:
    path = f"/accounts/{login.account['id']}"

    login.fleet.change("POST", f"{path}/suspend", {"reason": "unpaid"})
    assert login.is_refused()

    login.fleet.change("POST", f"{path}/unsuspend")
    assert login.is_let_in()


def test_sftp_when_a_page_is_put_is_served_by_the_site(login: Login, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("put by sftp")
    batch = tmp_path / "batch"
    batch.write_text(f"put {page} sites/{login.site['domain']}/public/index.html\n")

    argv = ["sftp", *login.options, "-b", str(batch), login.target]
    answer = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=SSH_TIMEOUT_SECONDS)

    assert answer.returncode == 0, answer.stderr
    assert login.fleet.get(login.node, login.site["domain"]).text == "put by sftp"


def test_login_when_tenant_writes_keys_of_its_own_is_refused(login: Login, tmp_path: Path) -> None:
    other = make_key(tmp_path, "other")
    line = other.with_suffix(".pub").read_text().strip()
    assert login.ssh(f"mkdir -m 700 .ssh && echo '{line}' > .ssh/authorized_keys").returncode == 0

    login.key_file = other

    assert login.is_refused()


def test_forwarding_when_asked_is_refused(login: Login) -> None:
    answer = login.ssh("true", "-oExitOnForwardFailure=yes", "-R", "127.0.0.1:0:127.0.0.1:22")

    assert answer.returncode == 255
    assert "forwarding" in answer.stderr.lower()


def test_key_when_it_is_only_for_another_network_is_refused(login: Login, tmp_path: Path) -> None:
    other = make_key(tmp_path, "far")
    body = {
        "account_id": login.account["id"],
        "name": "far",
        "public_key": other.with_suffix(".pub").read_text(),
        "allowed_networks": ["203.0.113.0/24"],
    }
    login.fleet.change("POST", "/ssh-keys", body)

    login.key_file = other

    assert login.is_refused()
    assert login.fleet.api.call("GET", f"/ssh-keys?account_id={login.account['id']}")["items"][0]["state"] == "active"


def test_rules_when_somebody_edits_them_are_found_and_brought_back(login: Login) -> None:
    path = "/etc/ssh/sshd_config.d/00-wcp360.conf"
    node_id = login.fleet.node_id(login.node)
    before = login.fleet.run(login.node, "/usr/bin/cat", path).check().stdout
    login.fleet.node(login.node).run(["/usr/bin/tee", path], stdin=b"# nothing\n").check()

    login.fleet.change("POST", f"/nodes/{node_id}/modules/ssh/enable")

    assert login.fleet.run(login.node, "/usr/bin/cat", path).check().stdout == before
    assert login.is_let_in()

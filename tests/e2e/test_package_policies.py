"""What a package forbids and allows reaches PHP and the web server of real nodes, and nothing there gets around it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from tests.e2e.fleet import MIB, Fleet, php_version

EXEC = """<?php
ini_set('disable_functions', '');
@copy(getenv('HOME') . '/mine', '/tmp/mine') && chmod('/tmp/mine', 0755);
$ways = ['exec', 'shell_exec', 'system', 'passthru', 'popen', 'proc_open', 'mail', 'putenv', 'dl'];
$there = array_values(array_filter($ways, 'function_exists'));
$said = function_exists('exec') ? exec('echo started') : '';
echo json_encode(['there' => $there, 'said' => $said, 'ini' => ini_get('disable_functions')]);
"""
SETTINGS = """<?php
$names = ['memory_limit', 'post_max_size', 'upload_max_filesize', 'max_execution_time', 'max_input_vars', 'date.timezone',
    'display_errors', 'session.gc_maxlifetime', 'session.cookie_samesite', 'opcache.revalidate_freq', 'allow_url_fopen'];
$is_raised = @ini_set('memory_limit', '4G');
echo json_encode(['values' => array_map('ini_get', array_combine($names, $names)), 'is_raised' => $is_raised !== false]);
"""
UPLOAD = """<?php
$file = $_FILES['file'] ?? null;
echo json_encode(['arrived' => strlen(file_get_contents('php://input')), 'file' => $file ? $file['size'] : null,
    'error' => $file ? $file['error'] : null]);
"""


@dataclass
class Hosted:
    """A PHP site whose package the test changes."""

    fleet: Fleet
    node: str
    package_id: str
    account: dict[str, Any]
    site: dict[str, Any]

    def write(self, name: str, content: str, domain: str = "") -> None:
        home = f"/srv/accounts/{self.account['name']}"
        path = f"{home}/sites/{domain or self.site['domain']}/public/{name}"
        self.fleet.write_as(self.node, self.account["name"], path, content)

    def ask(self, name: str, domain: str = "") -> Any:
        answer = self.fleet.get(self.node, domain or self.site["domain"], f"/{name}")
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text)

    def kernel_runs(self, program: str, *argv: str) -> bool:
        """Whether the program starts where the account's master lives: in its mount namespace, whoever asks."""
        unit = f"wcp-php{self.site['php_version']}@{self.account['uid']}.service"
        self.ask("exec.php")  # so that it is awake
        pid = self.fleet.run(self.node, "/usr/bin/systemctl", "show", "-P", "MainPID", unit).check().stdout.strip()
        done = self.fleet.run(self.node, "/usr/bin/nsenter", "--target", pid, "--mount", "--", program, *argv)
        assert done.exit_code == 0 or "Permission denied" in done.stderr, done.stderr
        return done.exit_code == 0

    def own_program(self) -> str:
        """A copy of a program in the account's home."""
        path = f"/srv/accounts/{self.account['name']}/mine"
        argv = (
            "/usr/sbin/runuser",
            "-u",
            self.account["name"],
            "--",
            "/usr/bin/install",
            "-m",
            "755",
            "/usr/bin/true",
            path,
        )
        self.fleet.run(self.node, *argv).check()
        return path

    def change_package(self, **body: Any) -> None:
        answer = self.fleet.api.call("PATCH", f"/packages/{self.package_id}", body)
        for job in answer["jobs"]:
            assert self.fleet.ended(job["id"])["state"] == "succeeded"

    def set_php(self, **settings: Any) -> dict[str, Any]:
        answer = self.fleet.api.call("PATCH", f"/sites/{self.site['id']}/php-settings", settings)
        for job in answer["jobs"]:
            assert self.fleet.ended(job["id"])["state"] == "succeeded"
        found: dict[str, Any] = answer["resource"]
        return found

    def send(self, size: int) -> httpx.Response:
        """A body of so many bytes."""
        address = self.fleet.node(self.node).address
        headers = {"host": self.site["domain"], "content-type": "application/octet-stream"}
        return httpx.post(f"http://{address}/upload.php", content=b"x" * size, headers=headers, timeout=60.0)

    def send_file(self, size: int) -> Any:
        """A form with one file."""
        address = self.fleet.node(self.node).address
        answer = httpx.post(
            f"http://{address}/upload.php",
            files={"file": ("f.bin", b"x" * size)},
            headers={"host": self.site["domain"]},
            timeout=60.0,
        )
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest.fixture
def hosted(fleet: Fleet, each_node: str) -> Hosted:
    package_id = fleet.package(f"policies{next(fleet.numbers)}", flags={"custom_php": True})
    account = fleet.account(each_node, package_id=package_id)
    site = fleet.site(account, php_version=php_version(fleet.node(each_node)))
    return Hosted(fleet, each_node, package_id, account, site)


def test_programs_when_the_package_is_strict_cannot_be_started_by_php_and_can_when_it_is_not(hosted: Hosted) -> None:
    hosted.write("exec.php", EXEC)
    hosted.write(".user.ini", "disable_functions =\n")
    before = hosted.ask("exec.php")

    hosted.change_package(security={"process_restrictions": "strict"})
    strict = hosted.ask("exec.php")
    own = hosted.own_program()
    is_run = [
        hosted.kernel_runs(*argv)
        for argv in (("/bin/sh", "-c", "true"), ("/usr/bin/perl", "-v"), (own,), ("/tmp/mine",))
    ]
    hosted.change_package(security={"process_restrictions": "standard"})
    after = hosted.ask("exec.php")

    assert before["said"] == after["said"] == "started"
    assert strict["said"] == ""
    assert strict["there"] == []
    assert strict["ini"].startswith("dl,exec,")
    # Whoever gets around PHP's list meets the kernel.
    assert is_run == [False, False, False, False]
    assert hosted.kernel_runs("/bin/sh", "-c", "true")
    assert hosted.kernel_runs(own)
    assert hosted.kernel_runs("/tmp/mine")


def test_php_settings_of_one_site_hold_for_it_and_for_no_other_and_go_with_the_feature(hosted: Hosted) -> None:
    other = hosted.fleet.site(hosted.account, php_version=hosted.site["php_version"])
    hosted.write("settings.php", SETTINGS)
    hosted.write("settings.php", SETTINGS, other["domain"])
    hosted.write(".user.ini", "max_input_vars = 4242\ndate.timezone = Asia/Tokyo\n")
    before = hosted.ask("settings.php", other["domain"])["values"]

    hosted.set_php(
        memory_limit_bytes=48 * MIB,
        post_max_size_bytes=3 * MIB,
        upload_max_filesize_bytes=2 * MIB,
        max_execution_time_seconds=7,
        date_timezone="Europe/Berlin",
        display_errors=True,
        session_gc_maxlifetime_seconds=7200,
        session_cookie_samesite="Strict",
        opcache_revalidate_freq_seconds=9,
        allow_url_fopen=False,
    )
    chosen, untouched = hosted.ask("settings.php"), hosted.ask("settings.php", other["domain"])
    many = [(hosted.ask("settings.php"), hosted.ask("settings.php", other["domain"])) for _ in range(10)]
    hosted.change_package(flags={"custom_php": False})
    without = hosted.ask("settings.php")["values"]
    hosted.change_package(flags={"custom_php": True})
    again = hosted.ask("settings.php")
    hosted.change_package(php_memory_bytes=32 * MIB)
    smaller = hosted.ask("settings.php")["values"]

    assert chosen["values"] == {
        "memory_limit": str(48 * MIB),
        "post_max_size": str(3 * MIB),
        "upload_max_filesize": str(2 * MIB),
        "max_execution_time": "7",
        "max_input_vars": "4242",
        "date.timezone": "Europe/Berlin",
        "display_errors": "1",
        "session.gc_maxlifetime": "7200",
        "session.cookie_samesite": "Strict",
        "opcache.revalidate_freq": "9",
        "allow_url_fopen": "0",
    }
    assert not chosen["is_raised"]
    assert untouched["values"] == before
    assert [(one["values"], two["values"]) for one, two in many] == [(chosen["values"], before)] * 10
    assert without == before | {"max_input_vars": "4242", "date.timezone": "Asia/Tokyo"}
    assert again == chosen
    assert smaller["memory_limit"] == str(32 * MIB)


def test_upload_size_of_the_package_lets_a_body_just_below_arrive_and_refuses_one_just_above(hosted: Hosted) -> None:
    hosted.write("upload.php", UPLOAD)
    hosted.change_package(upload_max_bytes=4 * MIB)

    below, above = hosted.send(4 * MIB), hosted.send(4 * MIB + 1)
    file_below = hosted.send_file(4 * MIB - 4096)
    hosted.change_package(upload_max_bytes=6 * MIB)
    larger, too_large = hosted.send(6 * MIB), hosted.send(6 * MIB + 1)

    assert (below.status_code, below.json()["arrived"]) == (200, 4 * MIB)
    assert file_below == {"arrived": 0, "file": 4 * MIB - 4096, "error": 0}
    assert (larger.status_code, larger.json()["arrived"]) == (200, 6 * MIB)
    assert (above.status_code, too_large.status_code) == (413, 413)


def test_account_with_php_settings_when_deleted_leaves_none_of_them(hosted: Hosted) -> None:
    hosted.set_php(max_input_vars=2000)
    version, uid = hosted.site["php_version"], hosted.account["uid"]
    folder = f"/etc/wcp360/php/{version}/{uid}.d"
    assert (
        "max_input_vars = 2000" in hosted.fleet.run(hosted.node, "/usr/bin/cat", f"{folder}/sites.ini").check().stdout
    )

    hosted.fleet.change("DELETE", f"/sites/{hosted.site['id']}")

    assert hosted.fleet.run(hosted.node, "/usr/bin/test", "-e", folder).exit_code == 1

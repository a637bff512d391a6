"""The controller's unit files as systemd itself judges them, without booting anything."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from controller.__main__ import _parser
from controller.settings import ENVIRONMENT_PREFIX, Settings
from tests.integration.live import free_port

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "packaging/controller"
SERVICES = sorted(path.name for path in FOLDER.glob("*.service"))
EXPOSURE_MAX = {"wcp-signer.service": 1.0}
"""Of systemd's scale from 0 to 10; 2.0 for all others."""

pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")


def _run(*argv: str | Path, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_units_are_the_roles_that_there_are() -> None:
    assert SERVICES == [
        "wcp-api@.service", "wcp-gateway@.service", "wcp-migrate.service", "wcp-signer.service", "wcp-worker@.service", "wcpd.service",
    ]  # fmt: skip


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    for path in FOLDER.iterdir():
        if path.suffix in (".service", ".target"):
            text = re.sub(r"^ExecStart=.*$", "ExecStart=/bin/true", path.read_text(), flags=re.MULTILINE)
            (tmp_path / path.name).write_text(text)
    units = sorted(path.name for path in tmp_path.iterdir())

    done = _run("systemd-analyze", "verify", "--man=no", *units, cwd=tmp_path)

    ours = [line for line in done.stderr.splitlines() if "wcp" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_unit_is_hardened(name: str) -> None:
    done = _run("systemd-analyze", "security", "--offline=true", "--no-pager", FOLDER / name)

    found = re.search(r"Overall exposure level.*: ([0-9.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found.group(1)) <= EXPOSURE_MAX.get(name, 2.0), done.stdout


@pytest.mark.parametrize("name", SERVICES)
def test_unit_runs_a_command_and_sets_settings_that_exist(name: str) -> None:
    text = (FOLDER / name).read_text()
    command = re.findall(r"^ExecStart=\S+/wcpd (\S+)$", text, flags=re.MULTILINE)
    assert len(command) == 1
    assert _parser().parse_args(command).run

    known = {f"{ENVIRONMENT_PREFIX}{field.upper()}" for field in Settings.__struct_fields__} | {"WCP360_CONFIG"}
    assert set(re.findall(r"\b(WCP360_\w+)=", text)) <= known


def test_only_the_signer_can_reach_the_keys() -> None:
    for name in SERVICES:
        text = (FOLDER / name).read_text()
        owns_keys = "StateDirectory=wcp360-signer\n" in text
        assert owns_keys == (name == "wcp-signer.service")
        assert ("PrivateNetwork=yes\n" in text) == owns_keys
        if name.startswith("wcp-") and not owns_keys:
            assert "User=wcp360\n" in text
            assert "WCP360_SIGNER_SOCKET=" in text


def test_users_and_folders_are_described_as_systemd_wants(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    users = _run("systemd-sysusers", f"--root={tmp_path}", FOLDER / "sysusers.d/wcp360.conf")
    assert users.returncode == 0, users.stderr
    names = [line.partition(":")[0] for line in (tmp_path / "etc/passwd").read_text().splitlines()]
    assert {"wcp360", "wcp360-signer"} <= set(names)
    assert "wcp360:" in (tmp_path / "etc/group").read_text()

    folders = _run("systemd-tmpfiles", f"--root={tmp_path}", "--create", FOLDER / "tmpfiles.d/wcp360.conf")
    assert folders.returncode == 0, folders.stderr
    assert (tmp_path / "var/lib/wcp360-signer").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["install", "download-wheels"])
def test_script_is_clean_for_shellcheck(name: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    done = _run("shellcheck", FOLDER / name)
    assert done.returncode == 0, done.stdout


def test_install_when_asked_for_help_changes_nothing_and_explains() -> None:
    done = _run(FOLDER / "install", "--help")

    assert done.returncode == 0
    assert set(re.findall(r"^  (--[a-z-]+)", done.stdout, re.MULTILINE)) == {
        "--start",
        "--wheels",
        "--no-bundle",
        "--help",
    }


def test_install_when_it_fails_uses_the_exit_codes_that_are_documented() -> None:
    used = set(re.findall(r"\bfail(?:_with_log \S+)? (\d+) ", (FOLDER / "install").read_text()))
    listed = set(re.findall(r"\b(\d+) [a-z`]", _sentence_about_exit_codes()))

    assert used == listed - {"0"}


def _sentence_about_exit_codes() -> str:
    text = (ROOT / "docs/operations/controller.md").read_text()
    found = re.search(r"Exit status of the script: (.+?)\.\n", text, re.DOTALL)
    assert found is not None
    return found.group(1)


def test_locks_of_the_controller_pin_what_the_tests_ran_with() -> None:
    tested = _read_pins(ROOT / "requirements.lock")
    installed = _read_pins(FOLDER / "requirements.lock")

    assert {"litestar", "asyncpg", "redis", "click"} <= installed.keys()
    assert {name: version for name, version in installed.items() if tested.get(name) != version} == {}


def _read_pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_example_of_haproxy_is_valid(tmp_path: Path) -> None:
    program = shutil.which("haproxy")
    if program is None:
        pytest.skip("haproxy is not installed")
    text = (FOLDER / "examples/haproxy.cfg").read_text()
    text = text.replace("ca-file /etc/wcp360/ca.pem", "ca-file /etc/ssl/certs/ca-certificates.crt")
    config = tmp_path / "haproxy.cfg"
    config.write_text(text)
    done = _run(program, "-c", "-f", config)
    assert done.returncode == 0, done.stderr


def test_example_of_nginx_is_valid(tmp_path: Path) -> None:
    program = shutil.which("nginx")
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    if program is None or not module.exists():
        pytest.skip("nginx with its stream module is not installed")
    text = (FOLDER / "examples/nginx-stream.conf").read_text()
    text = re.sub(r"listen \d+;", lambda _: f"listen 127.0.0.1:{free_port()};", text)
    config = tmp_path / "nginx.conf"
    config.write_text(f"load_module {module};\npid {tmp_path}/pid;\nerror_log {tmp_path}/log;\nevents {{}}\n{text}")
    done = _run(program, "-t", "-c", config)
    assert done.returncode == 0, done.stderr

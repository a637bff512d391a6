"""The program that puts idle masters to sleep, over folders that look like /sys and /proc."""

from __future__ import annotations

import os
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

import agent.modules.php
from agent.modules.php.render import render_pool, render_static
from shared.specs.php_pool import PhpPoolSpec
from shared.types.names import UnixName

PROGRAM = Path(agent.modules.php.__file__).parent / "templates" / "sleep.py.j2"
UNIT = "wcp-php8.2@20001.service"
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def program() -> ModuleType:
    loader = SourceFileLoader("wcp_php_sleep", str(PROGRAM))
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "config"
    (folder / "8.2").mkdir(parents=True)
    spec = PhpPoolSpec(account=UnixName("alice"), uid=20001, version="8.2", idle_seconds=60)
    (folder / "8.2" / "20001.conf").write_text(render_pool(spec), encoding="utf-8")
    return folder


def make_cgroup(root: Path, unit: str, pids: list[int]) -> Path:
    folder = root / "user.slice" / "user-20001.slice" / unit
    folder.mkdir(parents=True)
    (folder / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids), encoding="ascii")
    return folder


def make_process(proc: Path, pid: int, age_seconds: float) -> None:
    started = int((time.clock_gettime(time.CLOCK_BOOTTIME) - age_seconds) * TICKS)
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    fields = ["S", "1", *["0"] * 17, str(started), "0"]
    (folder / "stat").write_text(f"{pid} (php) fpm: ) master) {' '.join(fields)}\n", encoding="utf-8")


def test_is_idle_when_an_old_master_is_alone_is_true(program: ModuleType, config_dir: Path, tmp_path: Path) -> None:
    make_process(tmp_path / "proc", 7, age_seconds=100)
    folder = make_cgroup(tmp_path, UNIT, [7])

    assert program.is_idle(folder, config_dir, tmp_path / "proc")


@pytest.mark.parametrize(
    ("pids", "age_seconds", "unit"),
    [
        ([7, 8], 1000, UNIT),  # a child works or waits
        ([7], 30, UNIT),  # started a moment ago: it may be about to fork
        ([], 1000, UNIT),  # it just ended
        ([7], 1000, "wcp-php8.2@20002.service"),  # a pool that we do not know
    ],
)
def test_is_idle_when_it_may_be_needed_is_false(
    program: ModuleType, config_dir: Path, tmp_path: Path, pids: list[int], age_seconds: float, unit: str
) -> None:
    make_process(tmp_path / "proc", 7, age_seconds)
    folder = make_cgroup(tmp_path, unit, pids)

    assert not program.is_idle(folder, config_dir, tmp_path / "proc")


def test_is_idle_when_the_master_is_gone_meanwhile_is_false(
    program: ModuleType, config_dir: Path, tmp_path: Path
) -> None:
    folder = make_cgroup(tmp_path, UNIT, [7])

    assert not program.is_idle(folder, config_dir, tmp_path / "proc")


def test_find_services_in_any_hierarchy_finds_ours_once(program: ModuleType, tmp_path: Path) -> None:
    for root in ("v1", "unified"):
        make_cgroup(tmp_path / root, UNIT, [7])
        make_cgroup(tmp_path / root, "wcp-php8.2@x.service", [8])
        make_cgroup(tmp_path / root, "cron.service", [9])

    found = list(program.find_services((tmp_path / "v1", tmp_path / "unified", tmp_path / "missing")))

    assert [folder.name for folder in found] == [UNIT]


def test_read_idle_seconds_is_what_the_pool_says(program: ModuleType, config_dir: Path) -> None:
    assert program.read_idle_seconds(UNIT, config_dir) == 60
    assert program.read_idle_seconds("ssh.service", config_dir) is None
    assert program.read_idle_seconds("wcp-php8.4@20001.service", config_dir) is None


def test_installed_program_is_the_one_that_is_tested() -> None:
    assert render_static("sleep.py.j2") == PROGRAM.read_text(encoding="utf-8")

"""Versions side by side and the link that is switched in one step."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.install.code import (
    BundleInfo,
    ensure_current,
    ensure_version,
    find_current_build,
    prune_versions,
    read_bundle_info,
)
from agent.link.setup_errors import SetupError


@pytest.fixture
def program_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "opt"
    (folder / "versions").mkdir(parents=True)
    return folder


def make_bundle(tmp_path: Path, build: str) -> tuple[Path, BundleInfo]:
    bundle = tmp_path / f"bundle-{build}"
    for name in ("agent", "shared", "lib", "bin", "units"):
        (bundle / name).mkdir(parents=True)
    (bundle / "agent/__main__.py").write_text("x = 1\n")
    (bundle / "bin/wcp-agent").write_text("#!/bin/sh\n")
    (bundle / "bundle.json").write_text(f'{{"version": "1", "build": "{build}"}}')
    return bundle, read_bundle_info(bundle)


def install(tmp_path: Path, program_dir: Path, build: str) -> tuple[bool, bool]:
    bundle, info = make_bundle(tmp_path, build)
    return ensure_version(bundle, info, program_dir), ensure_current(program_dir, info.build)


def test_install_when_new_copies_compiles_and_switches(tmp_path: Path, program_dir: Path) -> None:
    assert install(tmp_path, program_dir, "1-a") == (True, True)

    assert find_current_build(program_dir) == "1-a"
    assert (program_dir / "current/agent/__main__.py").read_text() == "x = 1\n"
    assert list((program_dir / "current/agent/__pycache__").glob("__main__*.pyc"))
    assert os.access(program_dir / "current/bin/wcp-agent", os.X_OK)


def test_install_when_present_changes_nothing(tmp_path: Path, program_dir: Path) -> None:
    bundle, info = make_bundle(tmp_path, "1-a")
    ensure_version(bundle, info, program_dir)
    ensure_current(program_dir, info.build)

    assert ensure_version(bundle, info, program_dir) is False
    assert ensure_current(program_dir, info.build) is False


def test_install_when_an_earlier_copy_broke_off_begins_anew(tmp_path: Path, program_dir: Path) -> None:
    (program_dir / "versions/.1-a.new/half").mkdir(parents=True)

    install(tmp_path, program_dir, "1-a")

    assert not (program_dir / "current/half").exists()
    assert [folder.name for folder in (program_dir / "versions").iterdir()] == ["1-a"]


def test_prune_keeps_the_current_and_the_one_before(tmp_path: Path, program_dir: Path) -> None:
    for number, build in enumerate(("1-a", "1-b", "1-c", "1-d")):
        install(tmp_path, program_dir, build)
        os.utime(program_dir / "versions" / build, (number, number))

    removed = prune_versions(program_dir)

    assert sorted(removed) == ["1-a", "1-b"]
    assert find_current_build(program_dir) == "1-d"


def test_current_when_nothing_is_installed_is_none(program_dir: Path) -> None:
    assert find_current_build(program_dir) is None


def test_bundle_info_when_folder_is_no_bundle_says_so(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="no agent bundle"):
        read_bundle_info(tmp_path)

"""The bundle that a controller serves: deterministic, complete, and without what a node never uses."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

from agent.__main__ import build_parser, list_bundled_libraries

ROOT = Path(__file__).parents[4]
INSTALL_SCRIPT = ROOT / "packaging/install/install.sh"
LOCK_FILE = ROOT / "packaging/bundle/requirements-agent.lock"


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_bundle", ROOT / "packaging/bundle/build_bundle.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONTENT = {"b/x.py": (b"x = 1\n", 0o644), "a": (b"#!/bin/sh\n", 0o755)}


def test_pack_when_same_content_gives_the_same_bytes(builder: ModuleType) -> None:
    first = builder.pack(CONTENT)

    assert hashlib.sha256(first).digest() == hashlib.sha256(builder.pack(dict(reversed(CONTENT.items())))).digest()


def test_pack_keeps_modes_and_drops_times_and_owners(builder: ModuleType) -> None:
    with tarfile.open(fileobj=io.BytesIO(builder.pack(CONTENT))) as archive:
        members = archive.getmembers()

    assert [(member.name, member.mode) for member in members] == [("a", 0o755), ("b/x.py", 0o644)]
    assert {(member.mtime, member.uid, member.gid) for member in members} == {(0, 0, 0)}


def test_digest_when_mode_or_content_or_name_changes_is_another(builder: ModuleType) -> None:
    variants = [
        CONTENT,
        {**CONTENT, "a": (b"#!/bin/sh\n", 0o644)},
        {**CONTENT, "a": (b"#!/bin/bash\n", 0o755)},
        {"b/y.py": CONTENT["b/x.py"], "a": CONTENT["a"]},
    ]

    assert len({builder.digest_content(variant) for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("websockets/client.py", True),
        ("msgspec/_core.cpython-311-x86_64-linux-gnu.so", True),
        ("psutil-7.2.2.dist-info/licenses/LICENSE", True),
        ("psutil-7.2.2.dist-info/RECORD", False),
        ("psutil/tests/test_all.py", False),
        ("msgspec/__init__.pyi", False),
        ("bin/tool", False),
        ("websockets/__pycache__/x.pyc", False),
    ],
)
def test_library_file_is_kept_when_a_node_can_use_it_or_it_is_a_licence(
    builder: ModuleType, path: str, kept: bool
) -> None:
    assert builder.is_kept(Path(path)) is kept


def test_sources_hold_the_agent_its_units_and_its_templates_and_nothing_of_the_controller(builder: ModuleType) -> None:
    names = {name for name, _ in builder.list_sources()}

    assert {"agent/__main__.py", "shared/version.py", "units/wcp-agent.service", "bin/wcp-agent"} <= names
    on_disk = {p.relative_to(ROOT).as_posix() for p in (ROOT / "agent").rglob("*.j2")}
    assert on_disk <= names
    assert not [name for name in names if name.startswith(("controller", "tests", "cli"))]


def test_lock_file_has_hashes_and_names_no_host() -> None:
    text = LOCK_FILE.read_text()

    assert "://" not in text
    assert "index" not in text
    for line in re.findall(r"^\S+==\S+.*$", text, re.MULTILINE):
        assert line.endswith("\\"), f"{line} has no hash"


def test_bundled_libraries_are_those_of_this_python(tmp_path: Path) -> None:
    for name in ("py311", "py313", "common"):
        (tmp_path / "lib" / name).mkdir(parents=True)

    assert list_bundled_libraries(tmp_path, (3, 13)) == [tmp_path / "lib/py313", tmp_path / "lib/common"]
    assert list_bundled_libraries(tmp_path / "checkout", (3, 13)) == []


def test_parser_has_no_option_that_would_show_a_token() -> None:
    for command in ("install", "enrol", "simulate"):
        with pytest.raises(SystemExit):
            build_parser().parse_args([command, "--controller", "https://x", "--token", "e1.x"])


def test_install_script_runs_nothing_when_the_download_was_cut(tmp_path: Path) -> None:
    """Every prefix of the script that ends at a line break, run with commands that would leave a trace."""
    lines = INSTALL_SCRIPT.read_text().splitlines()
    assert lines[-1] == 'main "$@"'
    for count in range(1, len(lines)):
        script = "\n".join(lines[:count]) + "\n"
        completed = subprocess.run(
            ["/bin/sh"], input=script, text=True, capture_output=True, cwd=tmp_path, timeout=20, env={}, check=False
        )
        assert completed.stdout == ""
        assert list(tmp_path.iterdir()) == []


def test_install_script_has_the_placeholders_that_the_controller_fills() -> None:
    assert set(re.findall(r"@[A-Z0-9_]+@", INSTALL_SCRIPT.read_text())) == {
        "@CONTROLLER_URL@",
        "@BUNDLE_SHA256@",
        "@SERVER_PIN@",
        "@VERSION@",
    }


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_install_script_is_clean_for_shellcheck() -> None:
    completed = subprocess.run(
        ["shellcheck", str(INSTALL_SCRIPT)], capture_output=True, text=True, timeout=60, check=False
    )

    assert completed.returncode == 0, completed.stdout

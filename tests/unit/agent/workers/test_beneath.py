"""Nothing that a tenant can put on the way leads a worker out of its folder, with openat2 and without."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.workers.beneath import open_beneath, open_root
from shared.errors import FleetError, InvalidInputError


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    (folder / "plain").write_text("mine")
    (folder / "sub" / "inner").write_text("mine too")
    (folder / "with\nbreak").write_text("odd")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("not yours")
    (folder / "link").symlink_to(tmp_path / "outside" / "secret")
    (folder / "inner-link").symlink_to("plain")
    (folder / "folder-link").symlink_to(tmp_path / "outside")
    (folder / "proc-link").symlink_to("/proc/self/root")
    os.mkfifo(folder / "fifo")
    descriptor = open_root(str(folder))
    yield descriptor
    os.close(descriptor)


@pytest.fixture(params=[True, False], ids=["openat2", "walk"])
def is_openat2(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize(("path", "content"), [("plain", b"mine"), ("sub/inner", b"mine too"), ("with\nbreak", b"odd")])
def test_regular_file_when_opened_is_read(root: int, is_openat2: bool, path: str, content: bytes) -> None:
    descriptor = open_beneath(root, path, is_openat2_tried=is_openat2)

    assert os.read(descriptor, 100) == content
    os.close(descriptor)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("link", "leads_outside"),
        ("inner-link", "leads_outside"),
        ("proc-link", "leads_outside"),
        ("fifo", "not_a_file"),
        ("sub", "not_a_file"),
        ("plain/below", "not_a_file"),
        ("missing", "no_such_file"),
        ("sub/missing", "no_such_file"),
    ],
)
def test_anything_else_when_opened_is_refused_at_once(root: int, is_openat2: bool, path: str, code: str) -> None:
    with pytest.raises(FleetError) as refused:
        open_beneath(root, path, is_openat2_tried=is_openat2)

    assert refused.value.code == code


@pytest.mark.parametrize("path", ["folder-link/secret", "proc-link/etc/passwd"])
def test_folder_that_is_a_link_when_passed_through_is_refused(root: int, is_openat2: bool, path: str) -> None:
    with pytest.raises(FleetError) as refused:
        open_beneath(root, path, is_openat2_tried=is_openat2)

    assert refused.value.code in ("leads_outside", "not_a_file")


@pytest.mark.parametrize("path", ["", "/etc/passwd", "..", "../outside/secret", "sub/../plain", "a//b", "a\0b", "."])
def test_path_that_is_no_list_of_names_is_refused_before_it_is_opened(root: int, path: str) -> None:
    with pytest.raises(InvalidInputError):
        open_beneath(root, path)


def test_hard_link_to_a_file_of_another_user_is_not_readable(tmp_path: Path) -> None:
    """A hard link has the owner and mode of the file, so a worker, being the tenant, reads no more than the tenant."""
    if os.geteuid() != 0:
        pytest.skip("needs to be two users")
    tmp_path.chmod(0o755)
    foreign = tmp_path / "foreign"
    foreign.write_text("not yours")
    foreign.chmod(0o600)
    os.link(foreign, tmp_path / "hard")
    root = os.open(tmp_path, os.O_RDONLY)
    try:
        os.seteuid(65_534)
        with pytest.raises(FleetError) as refused:
            open_beneath(root, "hard")
    finally:
        os.seteuid(0)
        os.close(root)

    assert refused.value.code == "not_readable"

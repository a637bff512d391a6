from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.actions import content_hash
from agent.system import files
from agent.system.paths import opened_parent, require_absolute
from agent.system.tree import remove_tree
from agent.system.undo import Checkpoints, PathKind, PathState, PathsUndo, decode_undo, encode_undo
from shared.errors import FactError, InvalidInputError, UnavailableError

UID, GID = os.getuid(), os.getgid()


def write(path: Path, content: str, mode: int = 0o640) -> None:
    files.write_file(str(path), content.encode(), uid=UID, gid=GID, mode=mode)


def test_write_file_when_new_has_content_owner_and_mode(tmp_path: Path) -> None:
    write(tmp_path / "a.conf", "x = 1\n")

    fact = files.path_fact(str(tmp_path / "a.conf"))
    assert fact is not None
    assert (fact.kind, fact.mode, fact.content_hash) == ("file", 0o640, content_hash("x = 1\n"))
    assert (fact.owner, fact.group) == (pwd.getpwuid(UID).pw_name, grp.getgrgid(GID).gr_name)
    assert [path.name for path in tmp_path.iterdir()] == ["a.conf"]


def test_write_file_when_target_is_a_symlink_replaces_the_link_not_its_target(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "a.conf").symlink_to(victim)

    write(tmp_path / "a.conf", "ours")

    assert victim.read_text() == "precious"
    assert not (tmp_path / "a.conf").is_symlink()


def test_write_file_when_same_already_leaves_it_untouched(tmp_path: Path) -> None:
    write(tmp_path / "a.conf", "same")
    before = (tmp_path / "a.conf").stat()

    write(tmp_path / "a.conf", "same")

    assert (tmp_path / "a.conf").stat().st_ino == before.st_ino


def test_write_file_when_a_crash_left_a_temporary_file_clears_it(tmp_path: Path) -> None:
    write(tmp_path / "a.conf", "one")
    with opened_parent(str(tmp_path / "a.conf")) as (parent, name):
        leftover = tmp_path / files._clear_temporary(parent, name)
    leftover.write_text("half")

    write(tmp_path / "a.conf", "two")

    assert [path.name for path in tmp_path.iterdir()] == ["a.conf"]


def test_write_file_when_parent_is_missing_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        write(tmp_path / "none" / "a.conf", "x")


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/a//b", "//a", "/a/", "/a\0b", ""])
def test_require_absolute_when_path_is_not_plain_refuses(path: str) -> None:
    with pytest.raises(InvalidInputError):
        require_absolute(path)


@pytest.mark.parametrize("operation", ["write", "read", "remove", "directory", "fact"])
def test_paths_when_a_tenants_directory_is_a_symlink_are_refused(tmp_path: Path, operation: str) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (elsewhere / "passwd").write_text("root")
    # Others than root can write the home: a link in it is not to be believed, whoever the tests run as.
    home.chmod(0o777)
    (home / "sites").symlink_to(elsewhere)
    target = str(home / "sites" / "passwd")
    operations = {
        "write": lambda: files.write_file(target, b"x", uid=UID, gid=GID, mode=0o644),
        "read": lambda: files.read_bytes(target),
        "remove": lambda: remove_tree(target),
        "directory": lambda: files.ensure_directory(target, uid=UID, gid=GID, mode=0o755),
        "fact": lambda: files.path_fact(target),
    }

    with pytest.raises(FactError) as caught:
        operations[operation]()

    assert caught.value.code == "unsafe_path"
    assert (elsewhere / "passwd").read_text() == "root"


@pytest.mark.skipif(UID != 0, reason="only where root alone can write is a link followed")
def test_paths_when_root_placed_the_link_follow_it() -> None:
    assert files.list_directory("/proc/self") is not None or files.list_directory("/bin") is not None
    assert files.path_fact("/bin/sh") is not None


def test_ensure_directory_when_there_keeps_content_and_sets_mode(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "d" / "kept").write_text("")

    files.ensure_directory(str(tmp_path / "d"), uid=UID, gid=GID, mode=0o750)

    assert (tmp_path / "d").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "d" / "kept").exists()


def test_ensure_directory_when_a_file_is_there_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "d").write_text("")

    with pytest.raises(UnavailableError):
        files.ensure_directory(str(tmp_path / "d"), uid=UID, gid=GID, mode=0o750)


def test_read_bytes_when_a_fifo_is_there_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    with pytest.raises(FactError):
        files.read_bytes(str(tmp_path / "fifo"))


def test_read_bytes_when_too_large_is_a_fact_error(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 11)

    with pytest.raises(FactError):
        files.read_bytes(str(tmp_path / "big"), limit=10)
    assert files.read_bytes(str(tmp_path / "missing" / "deep")) is None


def test_remove_tree_when_it_holds_links_removes_the_links_only(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    outside.mkdir()
    (outside / "precious").write_text("1")
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(outside)
    (tree / "a" / "b" / "file").write_text("")
    os.mkfifo(tree / "fifo")

    remove_tree(str(tree))
    remove_tree(str(tree))

    assert not tree.exists()
    assert (outside / "precious").read_text() == "1"


def test_remove_tree_when_nested_deeper_than_any_limit_removes_it(tmp_path: Path) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    current = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=current)
        following = os.open("d", os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = following
    os.close(current)

    remove_tree(str(top))

    assert not top.exists()


def test_restore_path_when_directory_was_not_there_takes_its_content_along(tmp_path: Path) -> None:
    state, content = files.capture_path(str(tmp_path / "new"))
    (tmp_path / "new" / "inner").mkdir(parents=True)

    files.restore_path(str(tmp_path / "new"), state, content)

    assert state.kind is PathKind.ABSENT
    assert not (tmp_path / "new").exists()


def test_restore_path_when_a_link_was_there_brings_the_link_back(tmp_path: Path) -> None:
    (tmp_path / "l").symlink_to("target")
    state, content = files.capture_path(str(tmp_path / "l"))
    write(tmp_path / "l", "file now")

    files.restore_path(str(tmp_path / "l"), state, content)

    assert (tmp_path / "l").readlink() == Path("target")


@settings(max_examples=40, deadline=None)
@given(
    content=st.binary(max_size=200), mode=st.sampled_from([0o600, 0o644, 0o640, 0o755]), later=st.binary(max_size=200)
)
def test_restore_path_when_a_file_changed_brings_bytes_and_mode_back(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, mode: int, later: bytes
) -> None:
    path = tmp_path_factory.mktemp("r") / "f"
    files.write_file(str(path), content, uid=UID, gid=GID, mode=mode)
    state, kept = files.capture_path(str(path))
    files.write_file(str(path), later, uid=UID, gid=GID, mode=0o600)

    files.restore_path(str(path), state, kept)

    assert path.read_bytes() == content
    assert path.stat().st_mode & 0o777 == mode


def test_checkpoints_when_content_is_large_keeps_it_beside_the_record(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    content = os.urandom(100_000)

    state = checkpoints.keep(PathState(kind=PathKind.FILE), content)
    record = encode_undo(PathsUndo(paths={"/f": state}))

    assert len(record) < 1000
    decoded = decode_undo(record)
    assert isinstance(decoded, PathsUndo)
    assert checkpoints.content_of(decoded.paths["/f"]) == content
    checkpoints.prune([record])
    assert checkpoints.content_of(state) == content
    checkpoints.prune([])
    with pytest.raises(FactError):
        checkpoints.content_of(state)


def test_checkpoints_when_the_copy_is_damaged_says_so(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    state = checkpoints.keep(PathState(kind=PathKind.FILE), b"x" * 100_000)
    (tmp_path / str(state.checkpoint)).write_bytes(b"other")

    with pytest.raises(FactError):
        checkpoints.content_of(state)


def test_decode_undo_when_bytes_are_foreign_is_a_fact_error() -> None:
    with pytest.raises(FactError):
        decode_undo(b"\xc1")

"""Files that commands save: whole or not there, for their owner only, and never bytes on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.downloads import require_target, save
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode


class Terminal:
    """Standard output of a person."""

    def isatty(self) -> bool:
        return True


def chunks_that_break_off() -> Iterator[bytes]:
    yield b"half"
    raise CommandFailedError("the connection broke", exit_code=ExitCode.UNAVAILABLE)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_save_when_the_file_is_new_is_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "archive.gz"

    size_bytes = save([b"a" * 70_000, b"\x00\xff"], str(path), is_forced=False)

    assert (size_bytes, path.read_bytes()) == (70_002, b"a" * 70_000 + b"\x00\xff")
    assert oct(path.stat().st_mode)[-3:] == "600"
    assert names(tmp_path) == ["archive.gz"]


@pytest.mark.parametrize("is_forced", [False, True])
def test_save_when_the_controller_breaks_off_leaves_what_was_there(tmp_path: Path, *, is_forced: bool) -> None:
    path = tmp_path / "archive.gz"
    if is_forced:
        path.write_text("mine")

    with pytest.raises(CommandFailedError, match="broke"):
        save(chunks_that_break_off(), str(path), is_forced=is_forced)

    assert names(tmp_path) == (["archive.gz"] if is_forced else [])
    assert not is_forced or path.read_text() == "mine"


def test_save_when_the_file_came_meanwhile_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "archive.gz"

    def chunks() -> Iterator[bytes]:
        path.write_text("mine")
        yield b"ours"

    with pytest.raises(CommandFailedError, match="there already"):
        save(chunks(), str(path), is_forced=False)

    assert (path.read_text(), names(tmp_path)) == ("mine", ["archive.gz"])


def test_save_when_forced_replaces_the_file_and_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "archive.gz"
    path.write_text("mine")
    path.chmod(0o644)

    save([b"ours"], str(path), is_forced=True)

    assert (path.read_text(), oct(path.stat().st_mode)[-3:]) == ("ours", "600")


@pytest.mark.parametrize("is_forced", [False, True])
@pytest.mark.parametrize("kind", ["folder", "link", "pipe", "device"])
def test_target_that_is_no_regular_file_is_refused(tmp_path: Path, kind: str, *, is_forced: bool) -> None:
    path = tmp_path / "target"
    match kind:
        case "folder":
            path.mkdir()
        case "link":
            path.symlink_to(tmp_path / "elsewhere")
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = Path(os.devnull)

    with pytest.raises(CommandFailedError, match="no regular file"):
        require_target(str(path), is_text=False, is_forced=is_forced)


def test_target_that_is_there_is_refused_before_anything_is_fetched(tmp_path: Path) -> None:
    path = tmp_path / "archive.gz"
    path.write_text("mine")

    with pytest.raises(CommandFailedError, match="there already"):
        require_target(str(path), is_text=True, is_forced=False)
    require_target(str(path), is_text=True, is_forced=True)


@pytest.mark.parametrize("path", ["/does/not/exist/archive.gz", "/proc/archive.gz"])
def test_save_when_the_folder_takes_no_file_says_so(path: str) -> None:
    with pytest.raises(CommandFailedError, match="cannot be written"):
        save([b"ours"], path, is_forced=False)


@pytest.mark.parametrize("output", [None, "-"])
def test_binary_answer_never_goes_to_a_terminal(monkeypatch: pytest.MonkeyPatch, output: str | None) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())

    with pytest.raises(CommandFailedError, match="terminal"):
        require_target(output, is_text=False, is_forced=False)
    require_target(output, is_text=True, is_forced=False)


@pytest.mark.parametrize("output", [None, "-"])
def test_save_to_standard_output_writes_the_bytes_as_they_came(
    capfdbinary: pytest.CaptureFixture[bytes], output: str | None
) -> None:
    save([b"\x00\xff", b"\r\n"], output, is_forced=False)

    assert capfdbinary.readouterr().out == b"\x00\xff\r\n"

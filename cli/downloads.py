"""Answers that are files: to a file that only the owner reads and that is whole or not there, or to standard output."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

import click

from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode

STANDARD_OUTPUT: Final = "-"
OUTPUT: Final = "switch_output"
FORCE: Final = "switch_force"


def download_options(*, is_text: bool) -> list[click.Option]:
    """For a command whose answer is a file."""
    default = "standard output" if is_text else "standard output, unless that is a terminal"
    return [
        click.Option(
            ["--output", "-o", OUTPUT],
            type=click.Path(allow_dash=True),
            metavar="FILE",
            help=f"Write to this file, readable by its owner only; - is standard output (default: {default}).",
        ),
        click.Option(["--force", FORCE], is_flag=True, help="Replace the file if it is there."),
    ]


def require_target(output: str | None, *, is_text: bool, is_forced: bool) -> None:
    """Pass when the answer may go there; asked before anything is fetched.

    Raises:
        CommandFailedError: It would show bytes on a terminal, or the file is there already, or is no file.
    """
    if output in (None, STANDARD_OUTPUT):
        if not is_text and sys.stdout.isatty():
            raise CommandFailedError(
                "the answer is binary, and this is a terminal",
                exit_code=ExitCode.USAGE,
                hint="Write it to a file: --output FILE.",
            )
        return
    _require_writable(Path(output or ""), is_forced=is_forced)


def save(chunks: Iterable[bytes], output: str | None, *, is_forced: bool) -> int:
    """Write the answer where it was wanted; how many bytes.

    The file has its name only when all of it is on the disk; whatever goes wrong before leaves what was there.

    Raises:
        CommandFailedError: It cannot be written, or the controller broke off.
    """
    if output in (None, STANDARD_OUTPUT):
        size_bytes = _copy(chunks, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return size_bytes
    path = Path(output or "")
    try:
        with _new_file(path) as (temporary, file):
            size_bytes = _copy(chunks, file)
            file.flush()
            os.fsync(file.fileno())
            _put_in_place(temporary, path, is_forced=is_forced)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return size_bytes


def _require_writable(path: Path, *, is_forced: bool) -> None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        status = None
    except OSError as error:
        raise _cannot_write(path, error) from error
    if status is None:
        return
    if not stat.S_ISREG(status.st_mode):  # to replace /dev/null or somebody's link is nobody's wish
        raise CommandFailedError(
            f"{path} is there and is no regular file", exit_code=ExitCode.USAGE, hint="Name another file."
        )
    if not is_forced:
        raise _is_there(path)


@contextmanager
def _new_file(path: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside the wanted one, on the same file system, gone at the end under this name."""
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield temporary, file
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def _put_in_place(temporary: Path, path: Path, *, is_forced: bool) -> None:
    _require_writable(path, is_forced=is_forced)  # it may have come into being meanwhile
    if is_forced:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # unlike a rename, it fails where there is something already
    except FileExistsError as error:
        raise _is_there(path) from error
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise
        temporary.replace(path)  # a file system without hard links


def _copy(chunks: Iterable[bytes], file: BinaryIO) -> int:
    size_bytes = 0
    for chunk in chunks:
        file.write(chunk)
        size_bytes += len(chunk)
    return size_bytes


def _is_there(path: Path) -> CommandFailedError:
    return CommandFailedError(
        f"{path} is there already", exit_code=ExitCode.USAGE, hint="Name another file, or replace it with --force."
    )


def _cannot_write(path: Path, error: OSError) -> CommandFailedError:
    return CommandFailedError(
        f"{path} cannot be written: {error.strerror or error}", exit_code=ExitCode.USAGE, hint="Name another file."
    )

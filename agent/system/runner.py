"""The one door for processes: argument lists, a stated environment, a time limit, capped output."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final

from agent.contract.facts import Completed
from agent.system.recording import current_recorder
from shared.errors import CommandError

TRUSTED_DIRECTORIES: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where programs are looked for, whatever our own PATH says; all of them belong to root on Debian."""

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {"PATH": ":".join(TRUSTED_DIRECTORIES), "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "HOME": "/root", "TZ": "UTC"}
)
"""All a program gets: messages in English for our parsers, and nothing of the environment we were started with."""

MAX_OUTPUT_BYTES: Final = 4 * 1024 * 1024
"""Kept of each stream; the rest is read and dropped, so that a chatty program neither blocks nor fills our memory."""

STDERR_TAIL_CHARACTERS: Final = 4096
NOT_FOUND_EXIT_CODE: Final = 127
"""Source: POSIX.1-2017, Shell 2.8.2: the command was not found."""
TIMEOUT_EXIT_CODE: Final = 124
"""Source: timeout(1), coreutils: the command timed out."""
_CHUNK_BYTES: Final = 65_536
KILL_SECONDS: Final = 10.0
"""How long a killed program may take to be gone: one that hangs in the kernel (a dead disk) never is."""


def resolve_program(name: str) -> str:
    """Return the absolute path of a program.

    Raises:
        CommandError: It is not installed.
    """
    candidates = (name,) if name.startswith("/") else tuple(f"{folder}/{name}" for folder in TRUSTED_DIRECTORIES)
    for candidate in candidates:
        if Path(candidate).is_file() and os.access(candidate, os.X_OK):
            return candidate
    raise CommandError((name,), NOT_FOUND_EXIT_CODE, "not found", hint=guess_cause(NOT_FOUND_EXIT_CODE, name))


def guess_cause(exit_code: int, program: str) -> str | None:
    """Say what an exit status usually means; None when it says nothing of itself."""
    if exit_code == NOT_FOUND_EXIT_CODE:
        return f"{program} is not installed, or is not in {' '.join(TRUSTED_DIRECTORIES)}"
    if exit_code == TIMEOUT_EXIT_CODE:
        return f"{program} did not end in time and was killed; is the machine overloaded, or a lock held?"
    if exit_code < 0:
        return f"{program} was ended by {_signal_name(-exit_code)}"
    return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


async def run(
    argv: Sequence[str],
    *,
    timeout_seconds: float,
    stdin: bytes | None = None,
    environment: Mapping[str, str] | None = None,
    accepted_codes: Sequence[int] = (0,),
) -> Completed:
    """Run a program to its end, in a session of its own, and return what it said.

    Args:
        argv: Words; the first is an absolute path or a name in TRUSTED_DIRECTORIES. Holds no secrets.
        timeout_seconds: Afterwards the program and its children are killed.
        stdin: What it reads; None is /dev/null.
        environment: Added to ENVIRONMENT.
        accepted_codes: Exit statuses that are no failure.

    Raises:
        CommandError: It is not installed, did not end in time, or ended with another status.
    """
    is_late = False
    began_at = time.monotonic()
    process = await _start(resolve_program(argv[0]), argv[1:], environment or {}, has_stdin=stdin is not None)
    try:
        async with asyncio.timeout(timeout_seconds):
            stdout, stderr = await _talk(process, stdin)
    except TimeoutError:
        is_late, stdout, stderr = True, b"", f"ended after {timeout_seconds:g} s".encode()
    except asyncio.CancelledError:
        is_late = True
        raise
    finally:
        await _end(process, is_late=is_late)
    exit_code = TIMEOUT_EXIT_CODE if is_late else (process.returncode or 0)
    completed = Completed(
        argv=tuple(argv),
        exit_code=exit_code,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
    )
    if (recorder := current_recorder()) is not None:
        said = completed.stderr.strip() or completed.stdout.strip()
        recorder.note(argv, exit_code=exit_code, seconds=time.monotonic() - began_at, output=said)
    if is_late or exit_code not in accepted_codes:
        said = completed.stderr.strip() or completed.stdout.strip()
        raise CommandError(
            completed.argv, exit_code, said[-STDERR_TAIL_CHARACTERS:], hint=guess_cause(exit_code, argv[0])
        )
    return completed


async def _start(
    program: str, words: Sequence[str], environment: Mapping[str, str], *, has_stdin: bool
) -> asyncio.subprocess.Process:
    starting = asyncio.create_task(
        asyncio.create_subprocess_exec(
            program,
            *words,
            stdin=asyncio.subprocess.PIPE if has_stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**ENVIRONMENT, **environment},
            cwd="/",
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:
        # It runs already when asyncio still gets ready to talk to it; asyncio itself would end it without its children.
        await asyncio.wait({starting}, timeout=KILL_SECONDS)
        if starting.done() and starting.exception() is None:
            await _end(starting.result(), is_late=True)
        raise


async def _talk(process: asyncio.subprocess.Process, stdin: bytes | None) -> tuple[bytes, bytes]:
    if process.stdout is None or process.stderr is None:
        return b"", b""
    stdout, stderr, _, _ = await asyncio.gather(
        _read_capped(process.stdout), _read_capped(process.stderr), _feed(process, stdin), process.wait()
    )
    return stdout, stderr


async def _feed(process: asyncio.subprocess.Process, stdin: bytes | None) -> None:
    if process.stdin is None or stdin is None:
        return
    # A program that stops reading early says why by its exit status, which is judged later.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(stdin)
        await process.stdin.drain()
    process.stdin.close()


async def _read_capped(stream: asyncio.StreamReader) -> bytes:
    kept = bytearray()
    while chunk := await stream.read(_CHUNK_BYTES):
        kept += chunk[: max(0, MAX_OUTPUT_BYTES - len(kept))]
    return bytes(kept)


async def _end(process: asyncio.subprocess.Process, *, is_late: bool) -> None:
    """Leave nothing running: kills the program's whole group when it has not ended (time-out, cancellation).

    Also when the program itself has ended: then a child of it holds its output open, and the group lives on with it.
    """
    if process.returncode is not None and not is_late:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(KILL_SECONDS):
            await process.wait()

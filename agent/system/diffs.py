"""What an action would change in text files, as a unified diff."""

from __future__ import annotations

import difflib
import stat
from typing import Final

from agent.contract.actions import AnyAction, PublishConfig, RemoveFile, WriteFile
from agent.system import files
from shared.errors import FactError

MAX_DIFF_CHARACTERS: Final = 64 * 1024


_CONTEXT_LINES: Final = 3
"""Around each change. Source: the default of diff -u (POSIX) and of difflib."""


def diff_of(action: AnyAction, *, is_whole: bool = False) -> str:
    """See Host.diff. A file that only its owner may read is named, not shown: it may hold a secret."""
    if isinstance(action, WriteFile):
        return _diff_write(action, is_whole=is_whole)
    if isinstance(action, RemoveFile):
        return _diff_removal(action.path)
    if isinstance(action, PublishConfig):
        written = [_diff_write(file, is_whole=is_whole) for file in action.files]
        return "".join([*written, *map(_diff_removal, action.removals)])[:MAX_DIFF_CHARACTERS]
    return ""


def _diff_write(action: WriteFile, *, is_whole: bool) -> str:
    before = _read_text(action.path)
    return render_diff(action.path, before, action.content, is_secret=_is_secret(action.mode), is_whole=is_whole)


def _diff_removal(path: str) -> str:
    fact = files.path_fact(path)
    is_secret = fact is not None and _is_secret(fact.mode)
    return render_diff(path, _read_text(path), None, is_secret=is_secret)


def _is_secret(mode: int) -> bool:
    return not mode & (stat.S_IRWXG | stat.S_IRWXO)


def _read_text(path: str) -> str | None:
    try:
        content = files.read_bytes(path)
    except FactError:
        # A link, or something too large: shown as if it were not there, which is what it will be replaced like.
        return None
    return None if content is None else content.decode("utf-8", "replace")


def render_diff(path: str, before: str | None, after: str | None, *, is_secret: bool, is_whole: bool = False) -> str:
    """Unified diff with the path in both headers; a file that is not there is /dev/null. Empty when nothing changes."""
    if before == after:
        return ""
    old_name = "/dev/null" if before is None else path
    new_name = "/dev/null" if after is None else path
    if is_secret:
        return f"--- {old_name}\n+++ {new_name}\n@@ content not shown: only its owner may read it @@\n"
    old, new = (before or "").splitlines(), (after or "").splitlines()
    context = len(old) + len(new) if is_whole else _CONTEXT_LINES
    lines = difflib.unified_diff(old, new, old_name, new_name, lineterm="", n=context)
    return "".join(f"{line}\n" for line in lines)[:MAX_DIFF_CHARACTERS]

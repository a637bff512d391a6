"""What an action would change in text files, as a unified diff."""

from __future__ import annotations

import difflib
import stat
from typing import Final

from agent.contract.actions import AnyAction, PublishConfig, RemoveFile, WriteFile
from agent.system import files
from shared.errors import FactError

MAX_DIFF_CHARACTERS: Final = 64 * 1024


def diff_of(action: AnyAction) -> str:
    """See Host.diff. A file that only its owner may read is named, not shown: it may hold a secret."""
    if isinstance(action, WriteFile):
        return _diff_write(action)
    if isinstance(action, RemoveFile):
        return _diff_removal(action.path)
    if isinstance(action, PublishConfig):
        return "".join([*map(_diff_write, action.files), *map(_diff_removal, action.removals)])[:MAX_DIFF_CHARACTERS]
    return ""


def _diff_write(action: WriteFile) -> str:
    return render_diff(action.path, _read_text(action.path), action.content, is_secret=_is_secret(action.mode))


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


def render_diff(path: str, before: str | None, after: str | None, *, is_secret: bool) -> str:
    """Unified diff with the path in both headers; a file that is not there is /dev/null. Empty when nothing changes."""
    if before == after:
        return ""
    old_name = "/dev/null" if before is None else path
    new_name = "/dev/null" if after is None else path
    if is_secret:
        return f"--- {old_name}\n+++ {new_name}\n@@ content not shown: only its owner may read it @@\n"
    lines = difflib.unified_diff(
        (before or "").splitlines(), (after or "").splitlines(), old_name, new_name, lineterm=""
    )
    return "".join(f"{line}\n" for line in lines)[:MAX_DIFF_CHARACTERS]

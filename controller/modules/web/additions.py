"""Which lines somebody added to a site's file by hand, and whether they mean the same elsewhere in its server. Pure.

Three versions meet here: what the node was told (the base), what its file says now, and what is wanted today. The diff
of a drift check holds the first two as a whole. Lines that were only added, as whole directives directly in the server
block, belong to no line around them, so they can be merged into whatever is wanted; all else is for a person to judge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from controller.core.drift import refuse_adoption
from shared.errors import InvalidInputError
from shared.specs.nginx_block import require_contained

_WHOLE_FILE: Final = re.compile(r"@@ -1(?:,\d+)? \+1(?:,\d+)? @@")
"""The only hunk begins with both files. Source: POSIX diff, "Diff -u or -U Output Format"."""


@dataclass(frozen=True, slots=True)
class _Group:
    """Lines that were added together: `lines[start:end]` of the node's file."""

    start: int
    end: int


def parse_additions(diff: str) -> tuple[str, ...]:
    """The added pieces in their order, each of whole lines and whole directives. Never empty.

    Args:
        diff: Of one file, from what the node has to what it was told, with the whole file around the changes.

    Raises:
        ConflictError: Something else than that was done to the file.
    """
    theirs, is_added = _read(diff)
    base = [line for line, added in zip(theirs, is_added, strict=True) if not added]
    if not _is_contained(base) or not _is_contained(theirs):
        raise refuse_adoption("the whole file is not in the finding, or its blocks are not closed")
    places = [_settle(theirs, is_added, group) for group in _group(is_added)]
    texts = ("\n".join(theirs[place.start : place.end]).strip("\n") for place in places)
    additions = tuple(text for text in texts if text.strip())
    if not additions:
        raise refuse_adoption("no directive was added")
    return additions


def merge(directives: str, additions: tuple[str, ...]) -> str:
    """The directives that are wanted, and behind them the additions that they do not hold already.

    Raises:
        ConflictError: They hold all of them.
    """
    missing = [text for text in additions if f"\n{text}\n" not in f"\n{directives}\n"]
    if not missing:
        raise refuse_adoption("what is wanted of the site holds these lines already")
    return "\n".join([*([directives.rstrip("\n")] if directives else []), *missing])


def _read(diff: str) -> tuple[list[str], list[bool]]:
    """The node's file, and for each line whether it was added.

    Raises:
        ConflictError: Lines are missing in it, or the diff is another than expected.
    """
    if "\ufffd" in diff:
        raise refuse_adoption("the file is not UTF-8")
    head, body = diff.splitlines()[:3], diff.removesuffix("\n").split("\n")[3:]
    is_one_file = len(head) == 3 and head[0].startswith("--- /") and head[1] == f"+++ {head[0].removeprefix('--- ')}"
    if not is_one_file or head[0] == "--- /dev/null" or not _WHOLE_FILE.fullmatch(head[2]):
        raise refuse_adoption("the finding is not about lines of the site's own file alone")
    if any(line[:1] not in (" ", "-") for line in body):
        raise refuse_adoption("lines were changed or removed, or more than one file differs")
    return [line[1:] for line in body], [line.startswith("-") for line in body]


def _group(is_added: list[bool]) -> list[_Group]:
    groups: list[_Group] = []
    for position, added in enumerate(is_added):
        if added and groups and groups[-1].end == position:
            groups[-1] = _Group(groups[-1].start, position + 1)
        elif added:
            groups.append(_Group(position, position + 1))
    return groups


def _settle(lines: list[str], is_added: list[bool], group: _Group) -> _Group:
    """Where the group stands for itself directly in the server block.

    A diff may show an added block one `}` too early or too late: the lines around it are the same. All places that give
    the same two files are tried.

    Raises:
        ConflictError: There is none.
    """
    tried = [group]
    start, end = group.start, group.end
    while start > 0 and not is_added[start - 1] and lines[start - 1] == lines[end - 1]:
        start, end = start - 1, end - 1
        tried.append(_Group(start, end))
    start, end = group.start, group.end
    while end < len(lines) and not is_added[end] and lines[start] == lines[end]:
        start, end = start + 1, end + 1
        tried.append(_Group(start, end))
    for place in tried:
        # Closing once more is right exactly where one block is open and no directive is.
        if _is_contained(lines[place.start : place.end]) and _is_contained([*lines[: place.start], "}"]):
            return place
    raise refuse_adoption(f"line {group.start + 1} of the file is not a whole directive directly in the server block")


def _is_contained(lines: list[str]) -> bool:
    try:
        require_contained("\n".join(lines))
    except InvalidInputError:
        return False
    return True

"""Paths inside a tenant's home: relative, normalised, and unable to leave it."""

from __future__ import annotations

import re
from typing import Final, NewType

from shared.errors import InvalidInputError

RelativePath = NewType("RelativePath", str)
"""A path below a root that somebody else names: `a/b/c`, no `..`, no leading slash, at most 200 characters."""

_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
MAX_RELATIVE_PATH_LENGTH: Final = 200


def parse_relative_path(raw: str) -> RelativePath:
    """Return the path if each of its parts is a plain name.

    Parts start with a letter, digit or underscore (so neither `..` nor a dot file nor an option can appear) and hold
    letters, digits, dots, underscores and hyphens only: nothing a configuration format would have to quote.

    Raises:
        InvalidInputError: It is absolute, empty, too long, or has a part that is no plain name.
    """
    if not raw or len(raw) > MAX_RELATIVE_PATH_LENGTH:
        raise InvalidInputError(f"a path has 1 to {MAX_RELATIVE_PATH_LENGTH} characters")
    if raw.startswith("/"):
        raise InvalidInputError("the path must be relative to the site's folder")
    for segment in raw.split("/"):
        if not _SEGMENT.fullmatch(segment):
            raise InvalidInputError(
                f"{raw[:80]!r} is not a plain path: each part starts with a letter, digit or underscore and holds "
                "letters, digits, dots, underscores and hyphens"
            )
    return RelativePath(raw)

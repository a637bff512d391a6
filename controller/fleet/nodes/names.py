"""Names and labels of nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.models import Node
from shared.errors import InvalidInputError

MAX_LABELS: Final = 32
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9][a-z0-9._/-]{0,62}")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9.-]+")


def require_node_name(raw: str, *, field: str = "name") -> str:
    """The name if a node can have it: 1 to 63 lower-case letters, digits, dots and inner hyphens.

    Raises:
        InvalidInputError: It breaks these rules.
    """
    if not _NAME.fullmatch(raw):
        raise InvalidInputError(
            f"{raw[:63]!r} is not a node name: 1 to 63 lower-case letters, digits, dots and inner hyphens", field=field
        )
    return raw


def name_from_hostname(hostname: str) -> str:
    """A name that a node can have, as near to its host name as possible."""
    name = _NOT_IN_NAMES.sub("-", hostname.lower())[:50].strip("-.")
    return name or "node"


async def find_free_name(session: AsyncSession, wanted: str) -> str:
    """The wanted name, or with the first number behind it that makes it unique."""
    statement = select(Node.name).where(Node.name.startswith(wanted, autoescape=True))
    taken = set((await session.execute(statement)).scalars())
    candidates = (wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3)))
    return next(candidate for candidate in candidates if candidate not in taken)


def require_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels if each is a short key with a printable value of at most 200 characters.

    Raises:
        InvalidInputError: One is not; `field` names it.
    """
    if len(labels) > MAX_LABELS:
        raise InvalidInputError(f"a node has at most {MAX_LABELS} labels", field="labels")
    for key, value in labels.items():
        if not _LABEL.fullmatch(key):
            raise InvalidInputError(
                f"{key[:63]!r} is not a label: up to 63 lower-case letters, digits, dots, slashes and hyphens",
                field="labels",
            )
        if len(value) > 200 or not value.isprintable():
            raise InvalidInputError("a label's value has at most 200 printable characters", field=f"labels.{key}")
    return dict(sorted(labels.items()))

"""Checks of single fields that every noun needs: each failure names its field."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, TypeVar

from shared.errors import InvalidInputError, NotFoundError

T = TypeVar("T")

MAX_EMAIL_LENGTH: Final = 254
"""Source: RFC 5321 section 4.5.3.1.3 (a path of 256 octets with its angle brackets)."""

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")


def parse_field(field: str, parse: Callable[[str], T], raw: str) -> T:
    """Return `parse(raw)`.

    Raises:
        InvalidInputError: What `parse` raised, with the field's name added.
    """
    try:
        return parse(raw)
    except InvalidInputError as error:
        raise InvalidInputError(error.message, field=field, hint=error.hint) from error


def require_text(field: str, raw: str, *, low: int = 0, high: int) -> str:
    """Return the text without blanks at its ends.

    Control characters are refused because they end up in logs, mails and terminals; NUL and lone surrogates because
    PostgreSQL cannot store them.

    Raises:
        InvalidInputError: It has fewer than `low` or more than `high` characters, or one that cannot be shown.
    """
    text = raw.strip()
    if not low <= len(text) <= high:
        raise InvalidInputError(f"{field} has {low} to {high} characters; this one has {len(text)}", field=field)
    if not text.isprintable():
        raise InvalidInputError(f"{field} must be one line of printable characters", field=field)
    return text


def require_email(field: str, raw: str) -> str:
    """Return the address if it looks like one that mail can reach.

    Raises:
        InvalidInputError: It does not.
    """
    if len(raw) > MAX_EMAIL_LENGTH or not _EMAIL.fullmatch(raw):
        raise InvalidInputError(f"{raw[:80]!r} is not an e-mail address such as ada@example.com", field=field)
    return raw


def require_moment(field: str, at: datetime) -> datetime:
    """Return the time if it can be compared and counted with: it has a zone, and months around it have a place.

    Raises:
        InvalidInputError: It has no zone, or is of another age.
    """
    if at.tzinfo is None:
        raise InvalidInputError(f"{field} needs a time zone, for example 2026-01-31T12:00:00Z", field=field)
    if not 1971 <= at.year <= 9000:
        raise InvalidInputError(f"{field} must be of the years 1971 to 9000", field=field)
    return at


def require_id(noun: str, raw: str) -> str:
    """Return the id in its canonical form.

    Raises:
        NotFoundError: It is no UUID, so nothing can have it.
    """
    try:
        return str(uuid.UUID(raw))
    except ValueError as error:
        raise not_found(noun, raw) from error


async def require_reference(field: str, found: Awaitable[T]) -> T:
    """What a field of a body refers to.

    Raises:
        InvalidInputError: There is no such thing. It is the body that is wrong then, not the address.
    """
    try:
        return await found
    except NotFoundError as error:
        raise InvalidInputError(error.message, field=field) from error


def require_id_field(field: str, raw: str) -> str:
    """Return the id in its canonical form, for fields and filters that name something else.

    Raises:
        InvalidInputError: It is no UUID.
    """
    try:
        return str(uuid.UUID(raw))
    except ValueError as error:
        raise InvalidInputError(f"{raw[:80]!r} is not an id", field=field) from error


def not_found(noun: str, reference: str) -> NotFoundError:
    """The one way to say that there is no such thing, or none that the actor may know of."""
    return NotFoundError(f"there is no {noun} {reference[:80]!r}")

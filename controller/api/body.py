"""Request bodies: strict JSON, decoded once, straight into the handler's type.

Litestar's own way converts leniently ("5" passes for 5) and without the paths of nested fields. Decoding here keeps one
set of rules for bodies and one form of field errors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from litestar import Request
from litestar.exceptions import HTTPException

from controller.api.words import say_plainly
from shared.errors import InvalidInputError

_JSON_TYPES: Final = ("", "application/json")
_PATH = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_NAMED_FIELD = re.compile(r"^Object (?:missing required|contains unknown) field `(?P<field>.*)`$")
_UNKNOWN_FIELD = re.compile(r"^Object contains unknown field `.*`$")
_INDEX = re.compile(r"\[(\d+|\.\.\.)\]")


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is decoded strictly into the type of the handler's `data`."""

    async def json(self) -> Any:
        """The decoded body.

        Raises:
            HTTPException: 415, the body says that it is not JSON.
            InvalidInputError: It is not what the handler takes; `field` names the first wrong field.
        """
        kind = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _JSON_TYPES:
            raise HTTPException(
                status_code=415, detail=f"send JSON (Content-Type: application/json), not {kind[:80]!r}"
            )
        target = self.route_handler.parsed_data_field
        return parse_body(await self.body(), target.annotation if target is not None else Any)


def parse_body(raw: bytes, kind: Any) -> Any:
    """Decode one JSON document into a type.

    Raises:
        InvalidInputError: It is no JSON, or a field is unknown, missing, of another type or outside its rules.
    """
    try:
        value = msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError as error:
        raise _explain(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from error
    except RecursionError as error:
        raise InvalidInputError("the body is nested too deeply") from error
    plain = msgspec.to_builtins(value, builtin_types=(datetime,))
    if b"\\u0000" in raw and (field := find_nul(plain)) is not None:
        raise InvalidInputError("a NUL character is not allowed", field=field)
    if (field := find_lost_time(plain)) is not None:
        raise InvalidInputError("this time lies beyond the calendar in UTC", field=field)
    return value


def _explain(error: msgspec.ValidationError) -> InvalidInputError:
    """Turn msgspec's sentence into a field and a message, keeping what a value type of ours had to say."""
    text = str(error)
    match = _PATH.search(text)
    message = text[: match.start()] if match else text
    path = parse_path(match.group("path")) if match else ""
    cause = error.__cause__
    if isinstance(cause, InvalidInputError):
        return InvalidInputError(cause.message, field=join_path(path, cause.field or ""), hint=cause.hint)
    named = _NAMED_FIELD.match(message)
    if named is None:
        return InvalidInputError(say_plainly(message), field=path)
    sentence = "is not a known field" if _UNKNOWN_FIELD.match(message) else "is required"
    field = join_path(path, named.group("field"))
    return InvalidInputError(f"{field} {sentence}", field=field)


def find_nul(value: Any) -> str | None:
    """Dotted path of the first text with a NUL character, which PostgreSQL cannot store; None when there is none."""
    return _find(value, lambda part: isinstance(part, str) and "\x00" in part)


def find_lost_time(value: Any) -> str | None:
    """Dotted path of the first time that has no like in UTC, as the first and last day of the calendar can be."""
    return _find(value, lambda part: isinstance(part, datetime) and not _fits_utc(part))


def _fits_utc(at: datetime) -> bool:
    try:
        at.astimezone(UTC)
    except OverflowError:
        return False
    return True


def _find(value: Any, is_wrong: Callable[[Any], bool], path: str = "") -> str | None:
    """Dotted path of the first part that is wrong; of a key: that of its object."""
    if isinstance(value, dict):
        if any(map(is_wrong, value)):
            return path
        children: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list | tuple):
        children = enumerate(value)
    else:
        return path if is_wrong(value) else None
    found = (_find(child, is_wrong, join_path(path, str(key))) for key, child in children)
    return next((hit for hit in found if hit is not None), None)


def parse_path(raw: str) -> str:
    """`.specs[0].name` as msgspec writes it, as `specs.0.name`."""
    return _INDEX.sub(r".\1", raw).strip(".")


def join_path(parent: str, child: str) -> str:
    """Two parts of a dotted path, either of which may be empty."""
    return f"{parent}.{child}".strip(".")

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from controller.api.body import parse_body
from shared.errors import InvalidInputError


class Body(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(min_length=3, max_length=5)] = "abc"
    size_bytes: Annotated[int, Meta(ge=10, le=20)] = 10
    share: Annotated[float, Meta(gt=1.0)] = 2.0
    word: Annotated[str, Meta(pattern="^x$")] = "x"
    state: Literal["on", "off"] = "on"
    ids: Annotated[list[str], Meta(max_length=1)] = []
    rest: Annotated[list[str], Meta(min_length=2)] = msgspec.field(default_factory=list)
    number: int | None = None
    is_on: bool = False
    until: datetime | None = None


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("name", "x", "must have at least 3 characters"),
        ("name", "x" * 6, "must have at most 5 characters"),
        ("name", None, "must be text, not null"),
        ("size_bytes", 1, "must be at least 10"),
        ("size_bytes", 21, "must be at most 20"),
        ("share", 0.5, "must be more than 1.0"),
        ("word", "y", "must be of the form '^x$'"),
        ("state", "z", "'z' is none of the words that are allowed"),
        ("ids", ["a", "b"], "must have at most 1 entry"),
        ("rest", [], "must have at least 2 entries"),
        ("number", "x", "must be a whole number or null, not text"),
        ("is_on", 1, "must be true or false, not a whole number"),
        ("until", "tomorrow", "must be a time such as 2027-01-31T12:00:00Z"),
    ],
)
def test_body_when_a_value_does_not_fit_says_so_without_names_of_types(field: str, value: Any, sentence: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_body(msgspec.json.encode({field: value}), Body)

    assert (raised.value.field, raised.value.message) == (field, sentence)

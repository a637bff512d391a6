"""msgspec's sentences about values, as people say them. Pure."""

from __future__ import annotations

import re
from typing import Final

_KINDS: Final = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "an object",
    "null": "null",
    "datetime": "a time such as 2027-01-31T12:00:00Z",
}
_BOUNDS: Final = {">=": "at least", "<=": "at most", ">": "more than", "<": "less than"}
_LENGTH: Final = re.compile(r"Expected `(?P<kind>\w+)` of length (?P<bound>>=|<=) (?P<count>\d+)")
_RANGE: Final = re.compile(r"Expected `(?:int|float)` (?P<bound>>=|<=|>|<) (?P<limit>-?[\d.e+]+)")
_TYPE: Final = re.compile(r"Expected `(?P<wanted>[^`]+)`, got `(?P<given>[^`]+)`")
_FORM: Final = re.compile(r"Expected `str` matching regex (?P<form>.+)", re.DOTALL)


def say_plainly(message: str) -> str:
    """The sentence without names of types; one that is not known stays as it is."""
    if found := _LENGTH.fullmatch(message):
        unit = "character" if found["kind"] == "str" else "entry"
        count = int(found["count"])
        plural = "entries" if unit == "entry" else "characters"
        return f"must have {_BOUNDS[found['bound']]} {count} {unit if count == 1 else plural}"
    if found := _RANGE.fullmatch(message):
        return f"must be {_BOUNDS[found['bound']]} {found['limit']}"
    if found := _TYPE.fullmatch(message):
        wanted = " or ".join(_KINDS.get(word, word) for word in found["wanted"].split(" | "))
        return f"must be {wanted}, not {_KINDS.get(found['given'], found['given'])}"
    return _say_form(message)


def _say_form(message: str) -> str:
    if found := _FORM.fullmatch(message):
        return f"must be of the form {found['form']}"
    if message.startswith("Invalid enum value"):
        return f"{message.removeprefix('Invalid enum value ')} is none of the words that are allowed"
    if message == "Invalid RFC3339 encoded datetime":
        return f"must be {_KINDS['datetime']}"
    return message

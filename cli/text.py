"""Values as people read them, and nothing in them that a terminal would obey. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

BYTE_STEP = 1024
# C0 but tab and newline, DEL, C1, and what reorders a line: a name or a log line must not move the cursor or hide text.
# Source: ECMA-48 section 5; Unicode Standard Annex 9 for the directional formatting characters.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|\+00:00)")
_LEVELS = ("used", "soft", "hard", "peak", "allowed", "promised", "cap")
_VALUES = ("wanted", "enforced", "value", "before", "after", "minimum", "maximum")
_MEASURES = frozenset((*_LEVELS, *_VALUES))
"""Fields that count in the unit which their row names."""
_UNSAFE_IN_JSON = re.compile("[\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(value: Any) -> str:
    """The text with control characters shown as escapes."""
    return _UNSAFE.sub(lambda found: f"\\x{ord(found.group()):02x}", str(value).replace("\r\n", "\n"))


def render_json(value: Any) -> str:
    """JSON for programs that is harmless on a terminal too."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def format_value(name: str, value: Any) -> str:
    """A value as people read it: sizes with their unit, times to the second in UTC, lists with commas."""
    if value in ({}, []):
        return "-"
    if isinstance(value, (dict, list)):
        is_plain = isinstance(value, list) and all(not isinstance(item, (dict, list)) for item in value)
        return visible(", ".join(map(str, value)) if is_plain else render_json(value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return format_bytes(int(value)) if name.endswith("_bytes") else _format_number(value)
    if isinstance(value, str) and _TIME.fullmatch(value):
        return value[:19].replace("T", " ") + "Z"
    return "-" if value is None or value == "" else visible(value)


def _format_number(value: float) -> str:
    """Two decimals are enough for people."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def format_cell(name: str, value: Any) -> str:
    """The same in one line of a table: of a nested thing only what says the most."""
    if isinstance(value, Mapping):
        total, done = value.get("total"), value.get("done")
        counted = f"{done}/{total}" if total else ""
        short = value.get("message") or value.get("name") or counted or value.get("code")
        return format_value(name, short) if short else format_line(value, name) or "-"
    if is_rows(value):
        return "; ".join(format_line(row) for row in value)
    return format_value(name, value).replace("\n", " ")


def format_in_line(name: str, value: Any) -> str:
    """A value as people read it, of a flat thing as well, and as a whole."""
    if isinstance(value, Mapping) and value and _is_flat(value):
        return format_line(value, name)
    return format_cell(name, value) if is_rows(value) else format_value(name, value)


def is_rows(value: Any) -> bool:
    """Whether it is a list of flat things, each of which fits a line."""
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) and _is_flat(row) for row in value)


def _is_flat(row: Mapping[str, Any]) -> bool:
    return not any(isinstance(value, (dict, list)) for value in row.values())


def format_line(row: Mapping[str, Any], name: str = "") -> str:
    """A flat thing in one line: what a problem says and what to do about it, else its fields that hold something.

    Args:
        row: The thing.
        name: Of the field that it is the value of; its unit counts for what is inside.
    """
    if row.get("message"):
        sentences = (str(row[key]).rstrip(".") for key in ("message", "hint") if row.get(key))
        return visible(". ".join(sentences) + ".").replace("\n", " ")
    unit = "_bytes" if name.endswith("_bytes") else ""
    parts = (
        f"{visible(key.replace('_', ' '))} {format_value(measure_of(row, key) + unit, value)}"
        for key, value in row.items()
        if value is not None and value != ""
    )
    return ", ".join(parts).replace("\n", " ")


def measure_of(row: Mapping[str, Any], name: str) -> str:
    """The name of a field with its unit, where another field of the row says that it counts bytes."""
    says = (str(row.get(key, "")).endswith("_bytes") for key in ("limit", "key", "field"))
    return f"{name}_bytes" if name in _MEASURES and (row.get("unit") == "bytes" or any(says)) else name


def format_bytes(count: int) -> str:
    """1536 is 1.5 KiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"):
        if abs(size) < BYTE_STEP or unit == "EiB":
            return f"{size:.0f} {unit}" if size == int(size) else f"{size:.1f} {unit}"
        size /= BYTE_STEP
    raise AssertionError("unreachable")

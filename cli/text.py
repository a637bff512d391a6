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
        return format_value(name, short) if short else "-"
    return format_value(name, value).replace("\n", " ")


def format_bytes(count: int) -> str:
    """1536 is 1.5 KiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < BYTE_STEP or unit == "TiB":
            return f"{size:.0f} {unit}" if size == int(size) else f"{size:.1f} {unit}"
        size /= BYTE_STEP
    raise AssertionError("unreachable")

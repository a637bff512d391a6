"""Sizes as people write them: 512MiB, 1.5G, 1048576. Pure."""

from __future__ import annotations

import re
from decimal import Decimal

_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s?([A-Za-z]*)")
_POWERS = {"k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
EXAMPLES = "512MiB, 1.5GiB or 1048576"


def parse_size(text: str) -> int:
    """Bytes. A bare letter counts in 1024s as systemd and df do, `MB` in 1000s, `MiB` in 1024s; part bytes are cut off.

    Source: IEC 80000-13 for the names; systemd.resource-control(5) for the bare letters.

    Raises:
        ValueError: It is no size.
    """
    try:
        return int(text)  # a negative number too: the server says which sizes it allows
    except ValueError:
        found = _SIZE.fullmatch(text.strip())
    unit = _unit_of(found.group(2)) if found else None
    if found is None or unit is None:
        raise ValueError(f"{text!r} is not a size; write for example {EXAMPLES}")
    return int(Decimal(found.group(1)) * unit)


def _unit_of(word: str) -> int | None:
    lower = word.lower()
    if lower in ("", "b"):
        return 1
    power = _POWERS.get(lower[0])
    if power is None or lower[1:] not in ("", "b", "ib"):
        return None
    return int(1000**power if lower[1:] == "b" else 1024**power)

"""The base of every frame, apart from the unions so that each part of the wire can have a file of its own."""

from __future__ import annotations

import msgspec


class Frame(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", omit_defaults=True):
    """Base of all frames."""

"""Whether people can read one colour on another. Pure.

Source: WCAG 2.2, definition of relative luminance, success criterion 1.4.3.
"""

from __future__ import annotations

from typing import Final

READABLE: Final = 4.5
"""Level AA, text of ordinary size."""


def contrast_of(first: str, second: str) -> float:
    """Ratio of two colours such as #1a2b3c: 1 (the same) to 21 (black and white)."""
    dark, light = sorted((_luminance(first), _luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    red, green, blue = (_linear(int(colour[place : place + 2], 16) / 255) for place in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _linear(share: float) -> float:
    return share / 12.92 if share <= 0.04045 else float(((share + 0.055) / 1.055) ** 2.4)

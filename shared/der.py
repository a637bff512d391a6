"""Reads the little of DER that a certificate and a signature need, with nothing but Python itself.

Source: X.690 section 8.1 (identifier and length octets) and section 10.1 (definite, shortest lengths).
"""

from __future__ import annotations

from typing import Final, NamedTuple

SEQUENCE: Final = 0x30
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_ID: Final = 0x06
_LONG_FORM: Final = 0x80
_MAX_LENGTH_BYTES: Final = 4


class DerError(ValueError):
    """These bytes are not what they should be."""


class Element(NamedTuple):
    """One value."""

    tag: int
    content: bytes
    whole: bytes
    """With its tag and length."""


def read_element(data: bytes, offset: int = 0) -> Element:
    """The element that begins there.

    Raises:
        DerError: It is cut short, or its length is not written as DER has it.
    """
    if offset + 2 > len(data):
        raise DerError("cut short")
    tag, first, start = data[offset], data[offset + 1], offset + 2
    length = first
    if first >= _LONG_FORM:
        count = first - _LONG_FORM
        raw = data[start : start + count]
        if not 0 < count <= _MAX_LENGTH_BYTES or len(raw) != count or raw[0] == 0:
            raise DerError("an impossible length")
        start, length = start + count, int.from_bytes(raw, "big")
        if length < _LONG_FORM:
            raise DerError("a length that is not the shortest")
    end = start + length
    if end > len(data):
        raise DerError("cut short")
    return Element(tag, data[start:end], data[offset:end])


def read_whole(data: bytes, tag: int) -> Element:
    """The only element of these bytes.

    Raises:
        DerError: It has another tag, or something follows it.
    """
    element = read_element(data)
    if element.tag != tag or len(element.whole) != len(data):
        raise DerError("another element was expected")
    return element


def read_children(element: Element) -> list[Element]:
    """What a sequence holds.

    Raises:
        DerError: It cannot be read to its end.
    """
    children, offset = [], 0
    while offset < len(element.content):
        child = read_element(element.content, offset)
        children.append(child)
        offset += len(child.whole)
    return children


def read_integer(element: Element) -> int:
    """A number.

    Raises:
        DerError: It is none.
    """
    if element.tag != INTEGER or not element.content:
        raise DerError("a number was expected")
    return int.from_bytes(element.content, "big", signed=True)


def read_bits(element: Element) -> bytes:
    """A string of whole bytes.

    Raises:
        DerError: It is none.
    """
    if element.tag != BIT_STRING or element.content[:1] != b"\0":
        raise DerError("a string of bits was expected")
    return element.content[1:]

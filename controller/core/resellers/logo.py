"""Whether some bytes are a picture that every browser shows the same, and nothing else. Pure; nothing is decoded.

Source: PNG (Third Edition), sections 5.2 and 5.3; ITU-T T.81 (JPEG), annex B.
"""

from __future__ import annotations

import base64
import binascii
import struct
import zlib
from typing import Final

from shared.errors import InvalidInputError

MAX_BYTES: Final = 64 * 1024
MAX_SIDE: Final = 2000
"""Pixels."""
PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_JPEG_START: Final = b"\xff\xd8"
_JPEG_END: Final = b"\xff\xd9"
_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Second bytes of the markers SOF0 to SOF15, which say the size."""
_SCAN: Final = 0xDA


def parse_logo(field: str, raw: str) -> tuple[bytes, str]:
    """The picture and its media type.

    Raises:
        InvalidInputError: It is no base64, too large, or neither PNG nor JPEG from the first byte to the last.
    """
    try:
        data = base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError("the logo is not base64", field=field) from error
    if len(data) > MAX_BYTES:
        raise InvalidInputError(f"the logo has {len(data)} bytes; up to {MAX_BYTES} are allowed", field=field)
    media_type = PNG if data.startswith(_PNG_SIGNATURE) else JPEG
    size = _read_png(data) if media_type == PNG else _read_jpeg(data)
    if size is None:
        raise InvalidInputError("the logo is neither a PNG nor a JPEG, or something is behind its end", field=field)
    if not all(1 <= side <= MAX_SIDE for side in size):
        raise InvalidInputError(f"the logo has {size[0]} x {size[1]} pixels; up to {MAX_SIDE} each", field=field)
    return data, media_type


def _read_png(data: bytes) -> tuple[int, int] | None:
    """Width and height; None when the chunks do not lead from the header to the very end."""
    at, size = len(_PNG_SIGNATURE), None
    while at + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data):
            return None
        content = data[at + 8 : end - 4]
        if zlib.crc32(kind + content) != struct.unpack_from(">I", data, end - 4)[0]:
            return None
        if size is None:
            if kind != b"IHDR" or length != 13:
                return None
            size = struct.unpack_from(">II", content)
        if kind == b"IEND":
            return size if end == len(data) else None
        at = end
    return None


def _read_jpeg(data: bytes) -> tuple[int, int] | None:
    """Width and height; None when there is no frame, or no end."""
    if not data.startswith(_JPEG_START) or not data.endswith(_JPEG_END):
        return None
    at, size = len(_JPEG_START), None
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        if marker in _FRAMES and length >= 7 and at + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, at + 5)
            size = (width, height)
        if marker == _SCAN:
            # Within scans 0xFF is followed by 0x00 or a restart, so the first end is the end.
            return size if data.find(_JPEG_END, at) == len(data) - 2 else None
        at += 2 + length
    return None

"""Verifies ECDSA signatures of NIST P-256 with nothing but Python: for programs without a library of cryptography.

Verifying handles no secret, so that this is slow and not of constant time harms nobody; nothing is ever signed here.
Source: FIPS 186-5 section 6.4.2 (verification), SP 800-186 section 3.2.1.3 (the curve), RFC 3279 section 2.2.3 (the
form of a signature), SEC 1 section 2.3.4 (the form of a point).
"""

from __future__ import annotations

import hashlib
from typing import Final

from shared import der

POINT_BYTES: Final = 65
"""4, x and y: an uncompressed point."""

_P: Final = 2**256 - 2**224 + 2**192 + 2**96 - 1
_N: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_B: Final = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
_G: Final = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
    1,
)
_UNCOMPRESSED: Final = 4

_Point = tuple[int, int, int]
"""Jacobian coordinates; z is 0 at infinity."""
_INFINITY: Final[_Point] = (1, 1, 0)


def is_signed_by(public_point: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the key's owner signed exactly this message, with SHA-256.

    The point is uncompressed (POINT_BYTES), the signature is DER.
    """
    key = _parse_point(public_point)
    if key is None:
        return False
    try:
        r, s = _parse_signature(signature)
    except der.DerError:
        return False
    if not (0 < r < _N and 0 < s < _N):
        return False
    digest = int.from_bytes(hashlib.sha256(message).digest(), "big")
    inverse = pow(s, -1, _N)
    found = _multiply_both(digest * inverse % _N, r * inverse % _N, key)
    if found[2] == 0:
        return False
    x = found[0] * pow(found[2], -2, _P) % _P
    return x % _N == r


def _parse_signature(signature: bytes) -> tuple[int, int]:
    numbers = der.read_children(der.read_whole(signature, der.SEQUENCE))
    if len(numbers) != 2:
        raise der.DerError("a signature has two numbers")
    return der.read_integer(numbers[0]), der.read_integer(numbers[1])


def _parse_point(raw: bytes) -> _Point | None:
    if len(raw) != POINT_BYTES or raw[0] != _UNCOMPRESSED:
        return None
    x, y = int.from_bytes(raw[1:33], "big"), int.from_bytes(raw[33:], "big")
    if x >= _P or y >= _P or (y * y - (x * x * x - 3 * x + _B)) % _P:
        return None
    return (x, y, 1)


def _multiply_both(base_scalar: int, key_scalar: int, key: _Point) -> _Point:
    """base_scalar * G + key_scalar * key, in one pass (Shamir's trick)."""
    both = _add(_G, key)
    result = _INFINITY
    for bit in range(max(base_scalar.bit_length(), key_scalar.bit_length()) - 1, -1, -1):
        result = _double(result)
        which = (base_scalar >> bit & 1, key_scalar >> bit & 1)
        if which != (0, 0):
            result = _add(result, {(1, 0): _G, (0, 1): key, (1, 1): both}[which])
    return result


def _double(point: _Point) -> _Point:
    """Source: the Explicit-Formulas Database, "dbl-2001-b" (a = -3)."""
    x, y, z = point
    if z == 0 or y == 0:
        return _INFINITY
    delta, gamma = z * z % _P, y * y % _P
    beta = x * gamma % _P
    alpha = 3 * (x - delta) * (x + delta) % _P
    new_x = (alpha * alpha - 8 * beta) % _P
    new_z = ((y + z) * (y + z) - gamma - delta) % _P
    return new_x, (alpha * (4 * beta - new_x) - 8 * gamma * gamma) % _P, new_z


def _add(one: _Point, other: _Point) -> _Point:
    """Source: the Explicit-Formulas Database, "add-1998-cmo-2"."""
    if one[2] == 0:
        return other
    if other[2] == 0:
        return one
    x1, y1, z1 = one
    x2, y2, z2 = other
    square1, square2 = z1 * z1 % _P, z2 * z2 % _P
    u1, u2 = x1 * square2 % _P, x2 * square1 % _P
    s1, s2 = y1 * square2 * z2 % _P, y2 * square1 * z1 % _P
    if u1 == u2:
        return _double(one) if s1 == s2 else _INFINITY
    h, r = (u2 - u1) % _P, (s2 - s1) % _P
    h2 = h * h % _P
    h3, v = h * h2 % _P, u1 * h2 % _P
    x = (r * r - h3 - 2 * v) % _P
    return x, (r * (v - x) - s1 * h3) % _P, h * z1 * z2 % _P

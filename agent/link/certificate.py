"""Reads how long the node's certificate lasts, without loading `cryptography` (8 MB in a process that lives for ever).

Source: RFC 5280 section 4.1 (Certificate, TBSCertificate, Validity), X.690 section 8.1 (identifier and length octets).
"""

from __future__ import annotations

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Final, NamedTuple

from shared.errors import InvalidInputError

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE: Final = 0x30
_EXPLICIT_VERSION: Final = 0xA0
_UTC_TIME: Final = 0x17
_GENERALIZED_TIME: Final = 0x18


class Validity(NamedTuple):
    """From when to when a certificate is good."""

    not_before: datetime
    not_after: datetime


def parse_not_after(pem: str) -> datetime:
    """Return when the first certificate of a PEM text ends.

    Raises:
        InvalidInputError: It holds no certificate.
    """
    return parse_validity(pem).not_after


def parse_validity(pem: str) -> Validity:
    """Return how long the first certificate of a PEM text is good.

    Raises:
        InvalidInputError: It holds no certificate.
    """
    match = _PEM.search(pem)
    if match is None:
        raise InvalidInputError("the file holds no certificate")
    try:
        der = base64.b64decode("".join(match.group(1).split()), validate=True)
        return _parse_der_validity(der)
    except (binascii.Error, IndexError, ValueError) as error:
        raise InvalidInputError("the certificate cannot be read") from error


def _parse_der_validity(der: bytes) -> Validity:
    certificate = _parse_element(der, 0, _SEQUENCE)
    tbs = _parse_element(certificate, 0, _SEQUENCE)
    offset = _skip(tbs, 0) if tbs[0] == _EXPLICIT_VERSION else 0
    for _ in range(3):  # serialNumber, signature, issuer
        offset = _skip(tbs, offset)
    validity = _parse_element(tbs, offset, _SEQUENCE)
    end = _skip(validity, 0)
    return Validity(
        not_before=_parse_time(validity[0], _content(validity, 0)),
        not_after=_parse_time(validity[end], _content(validity, end)),
    )


def _parse_time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:
        # Two digits: 50 to 99 are the twentieth century. Source: RFC 5280 section 4.1.2.5.1.
        century = "19" if int(text[:2]) >= 50 else "20"
        text = century + text
    elif tag != _GENERALIZED_TIME:
        raise ValueError("not a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _header(data: bytes, offset: int) -> tuple[int, int]:
    """Where the content of the element at `offset` starts, and its length."""
    first = data[offset + 1]
    if first < 0x80:
        return offset + 2, first
    count = first & 0x7F
    start = offset + 2 + count
    return start, int.from_bytes(data[offset + 2 : start], "big")


def _content(data: bytes, offset: int) -> bytes:
    start, length = _header(data, offset)
    if start + length > len(data):
        raise ValueError("cut short")
    return data[start : start + length]


def _skip(data: bytes, offset: int) -> int:
    start, length = _header(data, offset)
    return start + length


def _parse_element(data: bytes, offset: int, tag: int) -> bytes:
    if data[offset] != tag:
        raise ValueError("another element was expected")
    return _content(data, offset)

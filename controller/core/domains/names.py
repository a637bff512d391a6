"""Names as people write them, into names as the wire has them."""

from __future__ import annotations

import idna

from shared.errors import InvalidInputError
from shared.types.names import MAX_DOMAIN_LENGTH, DomainName, parse_domain_name


def parse_host_name(field: str, raw: str) -> DomainName:
    """The A-label form of a host name, which may be written with any letters.

    Source: UTS 46 non-transitional mapping and IDNA 2008 (RFC 5891), as browsers do it.

    Raises:
        InvalidInputError: It is no host name; `field` is set.
    """
    name = raw.strip()
    if not name.isascii() and len(name) <= MAX_DOMAIN_LENGTH:
        name = _encode(field, name)
    try:
        parsed = parse_domain_name(name)
    except InvalidInputError as error:
        raise InvalidInputError(error.message, field=field, hint=error.hint) from error
    if "xn--" in parsed:
        _require_decodable(field, parsed, raw)
    return parsed


def render_host_name(name: str) -> str:
    """The name as people read it."""
    try:
        return idna.decode(name) if "xn--" in name else name
    except idna.IDNAError:
        return name


def parents_of(name: str) -> tuple[str, ...]:
    """Every name above this one that is a full domain name, nearest first."""
    labels = name.split(".")
    return tuple(".".join(labels[start:]) for start in range(1, len(labels) - 1))


def _encode(field: str, name: str) -> str:
    try:
        return idna.encode(name, uts46=True, transitional=False).decode("ascii")
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidInputError(f"{name[:80]!r} is not a domain name: {error}", field=field) from error


def _require_decodable(field: str, name: str, raw: str) -> None:
    """An A-label that no U-label gives is a made-up one, and browsers refuse it."""
    try:
        idna.decode(name)
    except (idna.IDNAError, UnicodeError) as error:
        raise InvalidInputError(f"{raw[:80]!r} is not a domain name: {error}", field=field) from error

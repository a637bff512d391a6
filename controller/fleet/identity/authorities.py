"""All authorities of the fleet: which ones nodes shall believe, and which one issues what.

Usually one. While a rotation runs there are two, and its phase says who issues (ca_rotation.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from controller.fleet.identity.authority import FIRST_ID, TRUSTED_FILE, Authority, authority_stem, public_key_der
from controller.fleet.signing.keyfiles import ensure_pki_dir, write_durably
from shared.errors import InvalidInputError, NotFoundError

ARRANGEMENT_FILE: Final = "authorities.json"
RETIRED_DIR: Final = "retired"
"""An authority that nobody trusts any more lies here until it is shredded: a restored database may name it again."""
MAX_TRUSTED: Final = 3
_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,38}")


class AuthorityInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What everybody may know of an authority."""

    ca_id: str
    pem: str
    pin: str
    """SHA-256 in hex of its public key (SPKI): what an enrolment token pins."""

    @property
    def certificate(self) -> x509.Certificate:
        """Parsed."""
        return x509.load_pem_x509_certificate(self.pem.encode())

    @property
    def der(self) -> bytes:
        """As trust bundles hold it."""
        return self.certificate.public_bytes(serialization.Encoding.DER)


class Arrangement(msgspec.Struct, frozen=True, kw_only=True):
    """Who is believed and who issues, by ids."""

    trusted: tuple[str, ...] = (FIRST_ID,)
    issuer: str = FIRST_ID
    """Of node certificates."""
    server_issuer: str = FIRST_ID
    """Of the certificates of our own listeners."""

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.trusted)) == len(self.trusted) <= MAX_TRUSTED:
            raise InvalidInputError(f"1 to {MAX_TRUSTED} different authorities can be trusted", field="trusted")
        if not all(_ID.fullmatch(ca_id) for ca_id in self.trusted):
            raise InvalidInputError("the id of an authority is made of a-z, 0-9 and hyphens", field="trusted")
        if self.issuer not in self.trusted or self.server_issuer not in self.trusted:
            raise InvalidInputError("only an authority that is trusted can issue", field="issuer")


class Authorities(msgspec.Struct, frozen=True, kw_only=True):
    """The trusted ones, and who issues."""

    trusted: tuple[AuthorityInfo, ...]
    issuer: str
    server_issuer: str

    def get(self, ca_id: str) -> AuthorityInfo:
        """One of the trusted.

        Raises:
            NotFoundError: It is not trusted (any more).
        """
        for info in self.trusted:
            if info.ca_id == ca_id:
                return info
        raise NotFoundError(f"the authority {ca_id[:40]!r} is not trusted here")


class AuthorityRing:
    """The authorities in files of the signer's own folder."""

    def __init__(self, pki_dir: Path, *, clock: Callable[[], datetime]) -> None:
        self._dir = pki_dir
        self._clock = clock
        self._held: dict[str, Authority] = {}
        self._arrangement = Arrangement()
        self._stamp = -1

    def open(self) -> None:
        """Read the authorities, or make the first one. Looks again when another process changed the arrangement.

        Raises:
            UnavailableError: A key cannot be read.
        """
        state = self._dir / ARRANGEMENT_FILE
        stamp = state.stat().st_mtime_ns if state.exists() else 0
        if stamp == self._stamp:
            return
        arrangement = msgspec.json.decode(state.read_bytes(), type=Arrangement) if stamp else Arrangement()
        self._held = {ca_id: self._open_one(ca_id) for ca_id in arrangement.trusted}
        self._arrangement, self._stamp = arrangement, stamp
        trusted = "".join(self._held[ca_id].ca_pem for ca_id in arrangement.trusted).encode()
        path = self._dir / TRUSTED_FILE
        if not path.exists() or path.read_bytes() != trusted:
            write_durably(path, trusted, mode=0o644)

    def _open_one(self, ca_id: str) -> Authority:
        held = self._held.get(ca_id)
        if held is not None:
            return held
        stem = authority_stem(ca_id)
        for suffix in ("crt", "key"):
            retired = self._dir / RETIRED_DIR / f"{stem}.{suffix}"
            if retired.exists() and not (self._dir / retired.name).exists():
                retired.rename(self._dir / retired.name)
        return Authority.open_or_create(self._dir, now=self._clock(), ca_id=ca_id)

    @property
    def issuer(self) -> Authority:
        """Issues node certificates."""
        self.open()
        return self._held[self._arrangement.issuer]

    @property
    def server_issuer(self) -> Authority:
        """Issues the certificates of our own listeners."""
        self.open()
        return self._held[self._arrangement.server_issuer]

    def describe(self) -> Authorities:
        """What everybody may know."""
        self.open()
        return Authorities(
            trusted=tuple(self._describe_one(ca_id) for ca_id in self._arrangement.trusted),
            issuer=self._arrangement.issuer,
            server_issuer=self._arrangement.server_issuer,
        )

    def arrange(self, arrangement: Arrangement) -> Authorities:
        """Make it so, with new authorities where one is named for the first time. The same again changes nothing."""
        self.open()
        if arrangement == self._arrangement:
            return self.describe()
        held = {ca_id: self._open_one(ca_id) for ca_id in arrangement.trusted}
        write_durably(self._dir / ARRANGEMENT_FILE, msgspec.json.encode(arrangement))
        dropped = [ca_id for ca_id in self._held if ca_id not in held]
        self._held, self._stamp = held, -1
        for path in self._list_files(dropped):
            ensure_pki_dir(self._dir / RETIRED_DIR)
            path.rename(self._dir / RETIRED_DIR / path.name)
        return self.describe()

    def _list_files(self, ca_ids: list[str]) -> Iterator[Path]:
        for ca_id in ca_ids:
            stem = authority_stem(ca_id)
            yield from (path for path in (self._dir / f"{stem}.key", self._dir / f"{stem}.crt") if path.exists())

    def _describe_one(self, ca_id: str) -> AuthorityInfo:
        authority = self._held[ca_id]
        return AuthorityInfo(ca_id=ca_id, pem=authority.ca_pem, pin=authority.ca_pin)


def spki_pin(certificate: x509.Certificate) -> str:
    """SHA-256 in hex of a certificate's public key. Source: RFC 7469 section 2.4 (over the SubjectPublicKeyInfo)."""
    return hashlib.sha256(public_key_der(certificate.public_key())).hexdigest()

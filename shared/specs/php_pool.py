"""The PHP runtime of one account in one version: its own master, inside the account's slice, woken by its socket."""

from __future__ import annotations

import re
from typing import ClassVar, Final

import msgspec
from msgspec import UNSET, UnsetType

from shared.errors import InvalidInputError
from shared.specs.account import MAX_TENANT_UID, MIB, MIN_TENANT_UID
from shared.specs.base import Spec, Stage
from shared.specs.php_settings import PhpSettings
from shared.types.names import DomainName, ResourceKey, UnixName, parse_domain_name, parse_unix_name

_VERSION = re.compile(r"[5-9]\.[0-9]")
PHP_SOCKET_DIR: Final = "/run/wcp-php"


def parse_php_version(raw: str) -> str:
    """Return `major.minor` as Debian names its packages, for example 8.2.

    Raises:
        InvalidInputError: It has another form.
    """
    if not _VERSION.fullmatch(raw):
        raise InvalidInputError(f"{raw[:20]!r} is not a PHP version such as 8.2")
    return raw


def php_socket_path(version: str, uid: int) -> str:
    """Where the account's PHP of this version listens: known to both sides, so that neither module asks the other."""
    return f"{PHP_SOCKET_DIR}/{version}/{uid}.sock"


class PhpSite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one site of the account has chosen for itself; for the scripts in its folder, ~/sites/DOMAIN."""

    domain: DomainName
    settings: PhpSettings

    def __post_init__(self) -> None:
        if parse_domain_name(self.domain) != self.domain:
            raise InvalidInputError(f"{self.domain!r} is not in its canonical form", field="domain")


class PhpPoolSpec(Spec, frozen=True, kw_only=True, tag="php_pool"):
    """One PHP-FPM master with one pool."""

    STAGE: ClassVar[Stage] = Stage.RUNTIME

    account: UnixName
    uid: int
    version: str
    children_max: int = 5
    """Worker processes at most, 1 to 500. Source: pm.max_children, php-fpm.conf."""
    memory_limit_bytes: int = 128 * MIB
    """memory_limit of php.ini, 16 MiB and more."""
    upload_max_bytes: int = 64 * MIB
    """upload_max_filesize and post_max_size of php.ini."""
    idle_seconds: int = 60
    """After how long without a request the whole master sleeps, 10 to 86400."""

    is_strict: bool | UnsetType = UNSET
    """True: PHP starts no other program. UNSET, not False: agents of before do not know the field."""
    sites: tuple[PhpSite, ...] | UnsetType = UNSET
    """Those with settings of their own; UNSET, not empty, as above."""

    def __post_init__(self) -> None:
        if self.sites is not UNSET and len({site.domain for site in self.sites}) != len(self.sites):
            raise InvalidInputError("a site is named twice", field="sites")
        parse_unix_name(self.account)
        parse_php_version(self.version)
        if not MIN_TENANT_UID <= self.uid <= MAX_TENANT_UID:
            raise InvalidInputError(f"uid {self.uid} is outside the tenants' range", field="uid")
        if not 1 <= self.children_max <= 500:
            raise InvalidInputError("children_max must be between 1 and 500", field="children_max")
        if self.memory_limit_bytes < 16 * MIB:
            raise InvalidInputError("memory_limit_bytes must be at least 16 MiB", field="memory_limit_bytes")
        if self.upload_max_bytes < MIB:
            raise InvalidInputError("upload_max_bytes must be at least 1 MiB", field="upload_max_bytes")
        if not 10 <= self.idle_seconds <= 86_400:
            raise InvalidInputError("idle_seconds must be between 10 and 86400", field="idle_seconds")

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(f"php_pool/{self.account}-{self.version}")

    @property
    def chosen(self) -> tuple[PhpSite, ...]:
        """Sites with settings of their own."""
        return () if self.sites is UNSET else self.sites

    @property
    def socket_path(self) -> str:
        """The unix socket that the web server talks to."""
        return php_socket_path(self.version, self.uid)

"""PHP settings that a tenant may choose for a site: a closed list, each with its own type and range.

Fields are called as PHP's directives are, with the unit: that is how the people who choose them know them.

What is not here stays as the node has it. None of these lets a tenant out of its limits, its home or its slice.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from shared.errors import InvalidInputError
from shared.specs.account import GIB, MIB

MAX_MEMORY_BYTES: Final = 1024 * GIB
MAX_BODY_BYTES: Final = 16 * GIB
MAX_EXECUTION_SECONDS: Final = 600
"""As request_terminate_timeout of the pool: nothing runs longer, whatever is set here."""
MAX_SESSION_SECONDS: Final = 366 * 86_400

_TIMEZONE = re.compile(r"[A-Za-z]{1,20}(?:[/_+-][A-Za-z0-9]{1,20}){0,4}")
RANGES: Final = {
    "memory_limit_bytes": (16 * MIB, MAX_MEMORY_BYTES),
    "upload_max_filesize_bytes": (MIB, MAX_BODY_BYTES),
    "post_max_size_bytes": (MIB, MAX_BODY_BYTES + MIB),
    "max_execution_time_seconds": (1, MAX_EXECUTION_SECONDS),
    "max_input_time_seconds": (1, MAX_EXECUTION_SECONDS),
    "max_input_vars": (100, 100_000),
    "max_file_uploads": (1, 500),
    "session_gc_maxlifetime_seconds": (60, MAX_SESSION_SECONDS),
    "session_cookie_lifetime_seconds": (0, MAX_SESSION_SECONDS),
    "opcache_revalidate_freq_seconds": (0, 3600),
}
"""Lowest and highest value."""
DIRECTIVES: Final = {
    "memory_limit_bytes": "memory_limit",
    "upload_max_filesize_bytes": "upload_max_filesize",
    "post_max_size_bytes": "post_max_size",
    "max_execution_time_seconds": "max_execution_time",
    "max_input_time_seconds": "max_input_time",
    "max_input_vars": "max_input_vars",
    "max_file_uploads": "max_file_uploads",
    "date_timezone": "date.timezone",
    "display_errors": "display_errors",
    "log_errors": "log_errors",
    "short_open_tag": "short_open_tag",
    "allow_url_fopen": "allow_url_fopen",
    "zlib_output_compression": "zlib.output_compression",
    "session_gc_maxlifetime_seconds": "session.gc_maxlifetime",
    "session_cookie_lifetime_seconds": "session.cookie_lifetime",
    "session_cookie_secure": "session.cookie_secure",
    "session_cookie_httponly": "session.cookie_httponly",
    "session_cookie_samesite": "session.cookie_samesite",
    "opcache_enable": "opcache.enable",
    "opcache_validate_timestamps": "opcache.validate_timestamps",
    "opcache_revalidate_freq_seconds": "opcache.revalidate_freq",
}
"""Field to the directive of php.ini that it is. Source: https://www.php.net/manual/en/ini.list.php."""


class PhpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What was chosen; None: as the node has it. DIRECTIVES says which directive a field is, RANGES its range."""

    memory_limit_bytes: int | None = None
    upload_max_filesize_bytes: int | None = None
    post_max_size_bytes: int | None = None
    max_execution_time_seconds: int | None = None
    max_input_time_seconds: int | None = None
    max_input_vars: int | None = None
    max_file_uploads: int | None = None
    date_timezone: str | None = None
    """Name of the time zone database, for example Europe/Berlin."""
    display_errors: bool | None = None
    log_errors: bool | None = None
    short_open_tag: bool | None = None
    allow_url_fopen: bool | None = None
    zlib_output_compression: bool | None = None
    session_gc_maxlifetime_seconds: int | None = None
    session_cookie_lifetime_seconds: int | None = None
    session_cookie_secure: bool | None = None
    session_cookie_httponly: bool | None = None
    session_cookie_samesite: Literal["Lax", "Strict", "None"] | None = None
    opcache_enable: bool | None = None
    opcache_validate_timestamps: bool | None = None
    opcache_revalidate_freq_seconds: int | None = None

    def __post_init__(self) -> None:
        for name, (low, high) in RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidInputError(f"{name} must be between {low} and {high}; it is {value}", field=name)
        if self.date_timezone is not None and not _TIMEZONE.fullmatch(self.date_timezone):
            raise InvalidInputError(
                f"{self.date_timezone[:40]!r} is not a time zone such as Europe/Berlin", field="date_timezone"
            )

    @property
    def is_empty(self) -> bool:
        """Whether everything is as the node has it."""
        return all(getattr(self, name) is None for name in DIRECTIVES)

    def within(self, *, memory_limit_bytes: int, upload_max_bytes: int) -> PhpSettings:
        """The same, where nothing is more than a package allows."""
        most = {
            "memory_limit_bytes": memory_limit_bytes,
            "upload_max_filesize_bytes": upload_max_bytes,
            "post_max_size_bytes": upload_max_bytes + MIB,  # a form has more in it than its file
        }
        chosen = {name: getattr(self, name) for name in most}
        lower = {name: min(value, most[name]) for name, value in chosen.items() if value is not None}
        return msgspec.structs.replace(self, **lower)

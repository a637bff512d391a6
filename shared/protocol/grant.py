"""The grant: what is signed for a stream. It says whose file, as whom, for what, and for how long it may be used.

The executor believes a grant like a job: by its signature, for its own node only, within its time, and once.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from shared.errors import InvalidInputError

GRANT_TYPE: Final = "application/vnd.wcp360.stream-grant.v1+msgpack"
GRANT_FORMAT_VERSION: Final = 1
GRANT_SECONDS: Final = 60.0
"""How long a grant may be used; the stream itself may last longer."""
MAX_GRANT_SECONDS: Final = 300.0
MAX_TAIL_LINES: Final = 10_000

KIND_LOG_TAIL: Final = "log.tail"
"""args = LogTailArgs; path = a file in the account's folder of web logs."""


class StreamGrant(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The payload of a grant's envelope. Times are seconds since the epoch, UTC."""

    v: int = GRANT_FORMAT_VERSION
    cluster_id: str
    node_id: str
    node_gen: int
    kind: str
    account: str
    uid: int
    """Of the account; the worker runs as this user and no other."""
    path: str
    """Below the folder that belongs to the kind; how it is opened is the worker's business (beneath, no links)."""
    args: bytes = b""
    """msgpack of the kind's own Struct."""
    max_bytes: int
    """The worker sends, or takes, no more."""
    nonce: bytes
    """16 random bytes: a grant is good for one stream."""
    issued_at: float
    expires_at: float
    actor: str
    """Who asked, for the node's own log."""
    request_id: str

    def __post_init__(self) -> None:
        if self.v != GRANT_FORMAT_VERSION:
            raise InvalidInputError(f"grant format {self.v} is not known", field="v")
        if len(self.nonce) != 16:
            raise InvalidInputError("a nonce has 16 bytes", field="nonce")
        if not 0 <= self.expires_at - self.issued_at <= MAX_GRANT_SECONDS:
            raise InvalidInputError(f"a grant lasts at most {MAX_GRANT_SECONDS:g} s", field="expires_at")
        if self.max_bytes < 1:
            raise InvalidInputError("max_bytes is at least 1", field="max_bytes")


class LogTailArgs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What of a log is wanted."""

    lines: Annotated[int, msgspec.Meta(ge=0, le=MAX_TAIL_LINES)] = 100
    """The last so many first; with a cursor, at most so many from there on unless it is followed."""
    cursor: Annotated[str, msgspec.Meta(max_length=80)] = ""
    """Of the last record that was seen; empty: from the end."""
    is_following: bool = False


class LogMark(enum.Enum):
    """What happened between two lines."""

    ROTATED = "rotated"
    """A new file was begun; nothing is missing."""
    TRUNCATED = "truncated"
    """The file was emptied; what was not read is gone."""
    GAP = "gap"
    """The cursor's place is not there any more; something is missing."""
    LOST = "lost"
    """`lost` lines came faster than this account may have them."""


class LogRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of a log's stream, as one line of JSON: a line of the log, or a mark."""

    cursor: Annotated[str, msgspec.Meta(max_length=80)] = ""
    """The place after this record: `inode:offset`."""
    line: str | None = None
    """Without its line break; bytes that are no UTF-8 are replaced."""
    is_cut: bool = False
    """The line was longer than is shown."""
    mark: LogMark | None = None
    lost: int = 0
    """Lines that were left out (mark `lost`)."""


_ENCODER = msgspec.msgpack.Encoder(order="deterministic")
_DECODER = msgspec.msgpack.Decoder(StreamGrant)


def encode_grant(grant: StreamGrant) -> bytes:
    """Encode for signing."""
    return _ENCODER.encode(grant)


def decode_grant(raw: bytes) -> StreamGrant:
    """Decode bytes whose signature was verified.

    Raises:
        InvalidInputError: An unknown field, a missing one, or a value outside its range.
    """
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, ValueError) as error:
        raise InvalidInputError(f"not a stream grant: {error}") from error

"""A site's logs: who may read them, and what a node says line by line. The bytes come from a tenant's own process."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final

import msgspec

from controller.core.accounts.models import Account
from controller.core.limits.check import require_feature
from controller.core.operations import FleetContext
from controller.fleet.streams.router import StreamRequest
from controller.fleet.streams.streams import NodeStream
from controller.modules.web import store
from shared.errors import UnavailableError
from shared.protocol.grant import KIND_LOG_TAIL, LogRecord, LogTailArgs
from shared.specs.site import site_log_name

MAX_LINES: Final = 1000
PAGE_BYTES: Final = 16 * 1024 * 1024
FOLLOW_BYTES: Final = 1024 * 1024 * 1024
"""A stream that is followed for longer ends in order, and its reader goes on from the last cursor."""
WINDOW_BYTES: Final = 64 * 1024
"""Tails are many and slow: they leave the session's room to others."""
MAX_RECORD_BYTES: Final = 128 * 1024
"""The longest line that a worker sends has 8 KiB; JSON writes some bytes with six characters."""

_DECODER = msgspec.json.Decoder(LogRecord)


class LogKind(enum.Enum):
    """Which of a site's logs."""

    ACCESS = "access"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWish:
    """What of the log is wanted."""

    kind: LogKind
    lines: int
    cursor: str
    is_following: bool


async def plan_log_stream(ctx: FleetContext, site_id: str, wish: LogWish) -> StreamRequest:
    """The stream to open for this actor.

    Raises:
        ForbiddenError: They may not; or it is the error log, and the package lacks it (`feature_disabled`).
        NotFoundError
    """
    ctx.actor.require("sites", "read")
    site = await store.get_site(ctx.session, site_id)
    account = await ctx.session.get_one(Account, site.account_id)
    if wish.kind is LogKind.ERROR:
        await require_feature(ctx, account, "advanced_logs")
    args = LogTailArgs(lines=wish.lines, cursor=wish.cursor, is_following=wish.is_following)
    return StreamRequest(
        node_id=account.home_node_id,
        account=account.name,
        uid=account.uid,
        kind=KIND_LOG_TAIL,
        path=site_log_name(site.domain, wish.kind.value),
        args=msgspec.msgpack.encode(args),
        max_bytes=FOLLOW_BYTES if wish.is_following else PAGE_BYTES,
        actor=ctx.actor.reference,
        request_id=ctx.request_id,
        window_bytes=WINDOW_BYTES,
    )


async def read_records(stream: NodeStream) -> AsyncGenerator[list[LogRecord]]:
    """What has come since the last time, in order, until the stream ends.

    Raises:
        UnavailableError: What came is no log (`worker_failed`).
        FleetError: The stream broke off.
    """
    begun = b""
    while data := await stream.read():
        *lines, begun = (begun + data).split(b"\n")
        if len(begun) > MAX_RECORD_BYTES:
            raise UnavailableError("the node sent a record without an end", code="worker_failed")
        records = [parse_record(line) for line in lines]
        if records:
            yield records


def parse_record(raw: bytes) -> LogRecord:
    """One record.

    Raises:
        UnavailableError: It is none (`worker_failed`).
    """
    try:
        return _DECODER.decode(raw)
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise UnavailableError("the node sent something else than a log", code="worker_failed") from error

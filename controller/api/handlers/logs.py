"""Logs of sites over HTTP: the last lines as one answer, or line by line for as long as somebody reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec
import structlog
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream

from controller.api import scopes
from controller.api.guards import require_identity
from controller.api.readers import Readers
from controller.api.vigil import Vigil, address_of, secret_of
from controller.core.auth.identities import Identity
from controller.core.auth.service import Authenticator
from controller.core.context import Actor
from controller.core.http import PathId
from controller.core.operations import Operations
from controller.fleet.streams.router import Streams
from controller.fleet.streams.streams import NodeStream
from controller.modules.web.logs import MAX_LINES, LogKind, LogWish, plan_log_stream, read_records
from shared.errors import FleetError, InvalidInputError
from shared.protocol.grant import LogMark, LogRecord

SILENCE_SECONDS: Final = 15.0
"""After so long without a line a sign of life goes out, so that a reader who has gone is noticed."""
NDJSON: Final = "application/x-ndjson"
EVENT_STREAM: Final = "text/event-stream"
_NO_CURSOR: Final = ""

_log = structlog.get_logger("controller.logs")
_ENCODER = msgspec.json.Encoder()

Encode = Callable[["LogLine | LogFailure"], bytes]
Keep = Callable[[], Awaitable[None]]
"""Raises once the reader may read no more."""


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a log, or a mark that says what happened between two lines."""

    line: str | None = None
    """Without its line break; bytes that are no UTF-8 are replaced. Null for a mark."""
    cursor: str = ""
    """The place after it: what `after` takes."""
    is_cut: bool = False
    """The line has more than 8 KiB; this is its beginning."""
    mark: LogMark | None = None
    """rotated: a new file was begun. truncated, gap: lines are missing. lost: `lost` lines came too fast."""
    lost: int = 0


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some lines of a log, oldest first."""

    items: tuple[LogLine, ...]
    cursor: str | None
    """Give it as `after` to read on from here; null when there is no line at all."""


class LogFailure(msgspec.Struct, frozen=True, kw_only=True):
    """The last record of a stream that broke off."""

    code: str
    detail: str


Lines = Annotated[
    int,
    QueryParameter(description=f"How many of the last lines; after a cursor: how many at most. 0 to {MAX_LINES}."),
]
After = Annotated[str | None, QueryParameter(description="A line's cursor: only what came after it.")]
Follow = Annotated[
    bool,
    QueryParameter(
        description="Keep the answer open and send each new line as a line of JSON (or as a server-sent event, for "
        "`Accept: text/event-stream`). An empty line is a sign of life."
    ),
]


@get(
    "/sites/{site_id:str}/logs/{log:str}", operation_id="read-site-log", tags=["sites"], summary="Read a log of a site"
)
async def read_site_log(
    *,
    site_id: PathId,
    log: Annotated[LogKind, PathParameter(description="access or error.")],
    request: Request[Any, Any, Any],
    streams: NamedDependency[Streams],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    authenticator: NamedDependency[Authenticator],
    readers: NamedDependency[Readers],
    lines: Lines = 100,
    after: After = None,
    follow: Follow = False,
) -> Response[LogPage]:
    """Read the last lines of a site's access or error log on its node, and follow it if wanted."""
    wish = LogWish(kind=log, lines=_require_lines(lines), cursor=_parse_after(after), is_following=follow)
    wanted = await operations.read(actor, request_id, lambda ctx: plan_log_stream(ctx, site_id, wish))
    if follow:
        readers.admit(request.scope, require_identity(request))
    stream = await streams.open(wanted)
    if follow:
        # However it ends: nobody else would tell the generator of a reader who has gone, which waits for the node.
        scopes.endings_of(request.scope).push_async_callback(stream.close)

        async def settle(identity: Identity) -> None:
            await operations.read(identity.actor, request_id, lambda ctx: plan_log_stream(ctx, site_id, wish))

        vigil = Vigil(authenticator, secret_of(request), address_of(request), settle)
        return _follow(stream, vigil.keep, is_event_stream=EVENT_STREAM in request.headers.get("accept", ""))
    try:
        return Response(await _read_page(stream, after=after))
    finally:
        await stream.close()


def _require_lines(lines: int) -> int:
    if not 0 <= lines <= MAX_LINES:
        raise InvalidInputError(f"lines must be 0 to {MAX_LINES}", field="lines")
    return lines


def _parse_after(after: str | None) -> str:
    inode, colon, offset = (after or "0:0").partition(":")
    if not (colon and all(part.isascii() and part.isdigit() and len(part) <= 20 for part in (inode, offset))):
        raise InvalidInputError("after must be a cursor of this log", field="after")
    return after or _NO_CURSOR


async def _read_page(stream: NodeStream, *, after: str | None) -> LogPage:
    items = [view_record(record) async for records in read_records(stream) for record in records]
    return LogPage(items=tuple(items), cursor=items[-1].cursor if items else after)


def _follow(stream: NodeStream, keep: Keep, *, is_event_stream: bool) -> Response[Any]:
    encode = _encode_event if is_event_stream else _encode_line
    return Stream(
        content=follow_log(stream, encode, keep, sign_of_life=b": \n\n" if is_event_stream else b"\n"),
        media_type=EVENT_STREAM if is_event_stream else NDJSON,
        headers={"x-accel-buffering": "no"},  # a proxy in front must not collect lines
    )


async def follow_log(stream: NodeStream, encode: Encode, keep: Keep, *, sign_of_life: bytes) -> AsyncGenerator[bytes]:
    """The bytes of an answer that follows a log; the next is read from the node once this one is on its way."""
    try:
        async with aclosing(_with_silences(stream)) as batches:
            async for records in batches:
                await keep()
                yield b"".join(encode(view_record(record)) for record in records) if records else sign_of_life
    except FleetError as error:
        _log.info("logs.broken_off", code=error.code)
        yield encode(LogFailure(code=error.code, detail=error.message))


async def _with_silences(stream: NodeStream) -> AsyncGenerator[list[LogRecord]]:
    """Batches of records; an empty one after each silence."""
    batches = read_records(stream)
    following: asyncio.Task[list[LogRecord] | None] | None = None
    try:
        while True:
            following = following or asyncio.create_task(_next_batch(batches))
            done, _ = await asyncio.wait((following,), timeout=SILENCE_SECONDS)
            if not done:
                yield []
                continue
            records, following = following.result(), None
            if records is None:
                return
            yield records
    finally:
        if following is not None:
            following.cancel()


async def _next_batch(batches: AsyncGenerator[list[LogRecord]]) -> list[LogRecord] | None:
    return await anext(batches, None)


def view_record(record: LogRecord) -> LogLine:
    """For the API."""
    return LogLine(line=record.line, cursor=record.cursor, is_cut=record.is_cut, mark=record.mark, lost=record.lost)


def _encode_line(item: LogLine | LogFailure) -> bytes:
    return _ENCODER.encode(item) + b"\n"


def _encode_event(item: LogLine | LogFailure) -> bytes:
    if isinstance(item, LogFailure):
        return b"event: failure\ndata: " + _ENCODER.encode(item) + b"\n\n"
    return b"id: " + item.cursor.encode() + b"\ndata: " + _ENCODER.encode(item) + b"\n\n"


ROUTES = (read_site_log,)

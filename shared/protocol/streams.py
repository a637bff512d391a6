"""Streams: bytes of any length over the session, each side sending only what the other has room for.

A stream is opened by the controller with a signed grant (grant.py), lives in one session and ends with CloseStream of
either side. Who receives says how far the other may send (credit.py); whoever sends beyond it is cut off. A stream that
broke is opened again with a new grant, from the offset or cursor that was reached.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from shared.protocol.envelope import Envelope
from shared.protocol.frame import Frame

STREAMS_CAPABILITY: Final = 2
"""Agents of this capability_version and up have streams."""
MAX_CHUNK_BYTES: Final = 16 * 1024
"""So small that whatever is more urgent never waits for long behind one."""
STREAM_WINDOW_BYTES: Final = 256 * 1024
CONNECTION_WINDOW_BYTES: Final = 2 * 1024 * 1024
MAX_STREAMS: Final = 64
"""Of one session."""
LIST_SECONDS: Final = 60.0
"""How often each side says which streams it has."""

Chunk = Annotated[bytes, msgspec.Meta(max_length=MAX_CHUNK_BYTES)]
StreamId = Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
Offset = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]


class OpenStream(Frame, frozen=True, kw_only=True, tag="stream_open"):
    """Controller: begin. Answered with StreamOpened, or with CloseStream that says why not."""

    sid: StreamId
    """Grows by one with each stream of the session."""
    grant: Envelope
    credit: Offset
    """The agent may send up to this offset."""


class StreamOpened(Frame, frozen=True, kw_only=True, tag="stream_opened"):
    """Agent: there is a worker, and it has what was asked for; data may follow."""

    sid: StreamId
    credit: Offset = 0
    """The controller may send up to this offset; 0: this kind of stream takes nothing."""


class StreamData(Frame, frozen=True, kw_only=True, tag="sd"):
    """The next bytes, within the credit."""

    sid: StreamId
    offset: Offset
    """Of the first byte; each chunk begins where the one before ended."""
    data: Chunk


class StreamCredit(Frame, frozen=True, kw_only=True, tag="stream_credit"):
    """The receiver has consumed something.

    An absolute offset, so that a repeated or late one does no harm. Source: the same rule as RFC 9000 section 4.1.
    """

    sid: StreamId
    upto: Offset


class CloseStream(Frame, frozen=True, kw_only=True, tag="stream_close"):
    """The stream has ended; an empty code means in order. Whoever sent data says how much it was altogether."""

    sid: StreamId
    code: str = ""
    message: str = ""
    total: Offset = 0
    sha256: bytes = b""
    """Of all `total` bytes; only where the code is empty."""


class ListStreams(Frame, frozen=True, kw_only=True, tag="stream_list"):
    """What the sender has open; the receiver frees whatever else it has, up to `newest`."""

    sids: Annotated[tuple[int, ...], msgspec.Meta(max_length=4 * MAX_STREAMS)] = ()
    newest: int = 0
    """The highest id that the sender has seen: later ones are on their way and not missing."""


StreamToAgent = OpenStream | StreamData | StreamCredit | CloseStream | ListStreams
StreamToController = StreamOpened | StreamData | StreamCredit | CloseStream | ListStreams

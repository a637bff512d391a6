"""The streams of one node's session, on the controller's side: it opens them, promises room, and reads what comes.

What is not read is not consumed, and what is not consumed gets no new credit: a reader that stands still stops the
worker on the node, and holds at most its window here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol

import structlog
from websockets.exceptions import ConnectionClosed

from shared.errors import (
    AgentOfflineError,
    ConflictError,
    FleetError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    RefusedError,
    UnavailableError,
)
from shared.protocol.credit import CreditPool, ReceiveWindow
from shared.protocol.envelope import Envelope
from shared.protocol.frame import Frame
from shared.protocol.streams import (
    LIST_SECONDS,
    STREAM_WINDOW_BYTES,
    CloseStream,
    ListStreams,
    OpenStream,
    StreamCredit,
    StreamData,
    StreamOpened,
    StreamToController,
)

OPEN_SECONDS: Final = 60.0
"""Longer than the agent waits for its executor, so that its reason comes first."""
SEND_SECONDS: Final = 10.0

Send = Callable[[Frame], Awaitable[None]]

_log = structlog.get_logger("controller.streams")

_KINDS: Final[Mapping[str, type[FleetError]]] = {
    "no_log": NotFoundError,
    "no_such_file": NotFoundError,
    "not_a_file": ConflictError,
    "not_readable": ForbiddenError,
    "leads_outside": ForbiddenError,
    "invalid_input": InvalidInputError,
    "agent_offline": AgentOfflineError,
    "executor_unavailable": UnavailableError,
    "systemd_unavailable": UnavailableError,
    "host_error": UnavailableError,
    "no_workers": UnavailableError,
    "stream_lost": UnavailableError,
    "stream_timeout": UnavailableError,
    "too_many_streams": UnavailableError,
    "unavailable": UnavailableError,
    "worker_failed": UnavailableError,
}
"""What a node's code means to a caller; whatever is not here is a refusal."""


def stream_error(code: str, message: str) -> FleetError:
    """The error behind a stream that did not end in order."""
    known = _KINDS.get(code)
    if known is not None:
        return known(message or "the node ended the stream", code=code)
    return RefusedError(f"the node refused: {message or code}"[:500], code="stream_refused", context={"code": code})


class NodeStream(Protocol):
    """Bytes that come from a node, wherever its session is."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end.

        Raises:
            FleetError: The stream broke off; what came before is good.
        """
        ...

    async def close(self) -> None:
        """Want no more of it. Again: nothing happens."""
        ...


class LocalStream:
    """One stream of a session in this process."""

    def __init__(self, sid: int, window: ReceiveWindow, owner: SessionStreams) -> None:
        self.sid = sid
        self._window = window
        self._owner = owner
        self._chunks: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._digest = hashlib.sha256()
        self._is_opened = False
        self._is_ended = False
        self._error: FleetError | None = None

    async def wait_opened(self) -> None:
        """Until the node has opened what was asked for.

        Raises:
            FleetError: It has not.
        """
        while not (self._is_opened or self._is_ended):
            self._news.clear()
            await self._news.wait()
        if self._error is not None:
            raise self._error

    async def read(self) -> bytes:
        """See NodeStream.read."""
        while not self._chunks:
            if self._is_ended:
                if self._error is not None:
                    raise self._error
                return b""
            self._news.clear()
            await self._news.wait()
        data = self._chunks.popleft()
        self._window.consume(len(data))
        upto = None if self._is_ended else self._window.next_credit()
        if upto is not None:
            await self._owner.say(StreamCredit(sid=self.sid, upto=upto))
        return data

    async def close(self) -> None:
        """See NodeStream.close."""
        if not self._is_ended:
            await self._owner.say(CloseStream(sid=self.sid, code="cancelled"))
            self.end(None)
        self._chunks.clear()

    def note_opened(self) -> None:
        """The node's first word."""
        self._is_opened = True
        self._news.set()

    def take_data(self, frame: StreamData) -> None:
        """Keep what came until it is read.

        Raises:
            ProtocolError: It is not what comes next, is nothing at all, or was not allowed.
        """
        if not frame.data:
            raise ProtocolError("a chunk without a byte", code="unexpected_frame")
        self._window.take(frame.offset, len(frame.data))
        self._digest.update(frame.data)
        self._chunks.append(frame.data)
        self._news.set()

    def take_close(self, frame: CloseStream) -> None:
        """The node's last word."""
        if frame.code:
            self.end(stream_error(frame.code, frame.message))
        elif (frame.total, frame.sha256) != (self._window.received, self._digest.digest()):
            self.end(UnavailableError("the node sent other bytes than it says", code="stream_lost"))
        else:
            self.end(None)

    def end(self, error: FleetError | None) -> None:
        """Nothing more will come; what came can still be read."""
        self._is_ended, self._error = True, error
        self._window.close()
        self._owner.forget(self)
        self._news.set()


class SessionStreams:
    """All streams of one session. The node opens none, so an id that we did not give is a protocol error."""

    def __init__(self, node_id: str, send: Send) -> None:
        self._node_id = node_id
        self._send = send
        self._pool = CreditPool()
        self._streams: dict[int, LocalStream] = {}
        self._newest = 0
        self._is_over = False
        self._lister: asyncio.Task[None] | None = None

    @property
    def open_count(self) -> int:
        """Streams that have not ended."""
        return len(self._streams)

    @property
    def promised_bytes(self) -> int:
        """The most that may have to be held here."""
        return self._pool.outstanding

    async def open(self, grant: Envelope, *, window_bytes: int = STREAM_WINDOW_BYTES) -> LocalStream:
        """Have the node open a stream and wait until it has.

        Raises:
            UnavailableError: There are too many, or the node did not answer in time.
            AgentOfflineError: The session ended meanwhile.
            FleetError: The node said why not.
        """
        if self._is_over:
            raise _offline()
        window = self._pool.open(window_bytes)
        self._newest += 1
        stream = self._streams[self._newest] = LocalStream(self._newest, window, self)
        if self._lister is None:
            self._lister = asyncio.create_task(self._list_for_ever(), name=f"streams-{self._node_id}")
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await self._send(OpenStream(sid=stream.sid, grant=grant, credit=window.next_credit() or 0))
                await stream.wait_opened()
        except ConnectionClosed as error:
            stream.end(None)
            raise _offline() from error
        except TimeoutError as error:
            await stream.close()
            raise UnavailableError("the node did not open the stream in time", code="stream_timeout") from error
        except BaseException:  # a caller that is cancelled must not leave a stream that nobody reads
            await stream.close()
            raise
        return stream

    async def say(self, frame: Frame) -> None:
        """Send one small frame; a session that is gone has ended all streams by itself."""
        try:
            async with asyncio.timeout(SEND_SECONDS):
                await self._send(frame)
        except (ConnectionClosed, TimeoutError):
            return

    def forget(self, stream: LocalStream) -> None:
        """It has ended."""
        self._streams.pop(stream.sid, None)

    def end_all(self) -> None:
        """The session is over."""
        self._is_over = True
        if self._lister is not None:
            self._lister.cancel()
        for stream in tuple(self._streams.values()):
            stream.end(_offline())

    # --- from the node ------------------------------------------------------------------------------------------------

    async def take(self, frame: StreamToController) -> None:
        """React to what the node said.

        Raises:
            ProtocolError: See the others.
        """
        match frame:
            case StreamOpened():
                await self.take_opened(frame)
            case StreamData():
                await self.take_data(frame)
            case StreamCredit():
                await self.take_credit(frame)
            case CloseStream():
                await self.take_close(frame)
            case ListStreams():
                await self.take_list(frame)

    async def take_opened(self, frame: StreamOpened) -> None:
        """There is a worker."""
        stream = self._find(frame.sid)
        if stream is not None:
            stream.note_opened()

    async def take_data(self, frame: StreamData) -> None:
        """Bytes of a stream; those of one that we closed were on their way and are dropped."""
        stream = self._find(frame.sid)
        if stream is not None:
            stream.take_data(frame)

    async def take_credit(self, frame: StreamCredit) -> None:
        """No kind of stream takes data yet."""
        self._find(frame.sid)

    async def take_close(self, frame: CloseStream) -> None:
        """A stream has ended."""
        stream = self._find(frame.sid)
        if stream is not None:
            stream.take_close(frame)

    async def take_list(self, frame: ListStreams) -> None:
        """Compare: what the node lost has ended, what we lost it is told to end."""
        for sid, stream in tuple(self._streams.items()):
            if sid <= frame.newest and sid not in frame.sids:
                _log.warning("stream.lost", node_id=self._node_id, sid=sid)
                stream.end(UnavailableError("the node lost the stream", code="stream_lost"))
        for sid in frame.sids:
            if self._find(sid) is None:
                await self.say(CloseStream(sid=sid, code="unknown_stream"))

    def _find(self, sid: int) -> LocalStream | None:
        """None for a stream that has ended here already.

        Raises:
            ProtocolError: We never opened such a stream.
        """
        if sid > self._newest:
            raise ProtocolError(f"there never was a stream {sid}", code="unknown_stream")
        return self._streams.get(sid)

    async def _list_for_ever(self) -> None:
        while True:
            await asyncio.sleep(LIST_SECONDS)
            await self.say(ListStreams(sids=tuple(sorted(self._streams)), newest=self._newest))


def _offline() -> AgentOfflineError:
    return AgentOfflineError("the node's agent went away", hint="Try again when the node is connected.")

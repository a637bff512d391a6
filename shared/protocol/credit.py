"""Hard credit: how far each side of a stream may send, and how much all streams of a session may hold. Pure.

The receiver promises room and keeps the promise, so its memory is bounded by what it promised: at most
STREAM_WINDOW_BYTES for a stream and CONNECTION_WINDOW_BYTES for the session. Each of MAX_STREAMS streams is sure of one
chunk, so that no stream can starve another; the rest of the session's window is given to whoever asks first.
"""

from __future__ import annotations

from typing import Final

from shared.errors import ProtocolError, UnavailableError
from shared.protocol.streams import CONNECTION_WINDOW_BYTES, MAX_CHUNK_BYTES, MAX_STREAMS, STREAM_WINDOW_BYTES

ASSURED_BYTES: Final = MAX_CHUNK_BYTES
"""What every stream may have outstanding whatever the others do."""
SHARED_BYTES: Final = CONNECTION_WINDOW_BYTES - MAX_STREAMS * ASSURED_BYTES


class SendWindow:
    """The sender's half: what may still be sent."""

    def __init__(self, upto: int = 0) -> None:
        self._upto = upto
        self.sent = 0
        """Offset of the next byte."""

    @property
    def available(self) -> int:
        """Bytes that may be sent now."""
        return self._upto - self.sent

    def raise_to(self, upto: int) -> None:
        """The receiver has promised more; an older promise that comes late changes nothing."""
        self._upto = max(self._upto, upto)

    def note_sent(self, count: int) -> None:
        """Bytes went out.

        Raises:
            ProtocolError: More than was allowed.
        """
        if count > self.available:
            raise ProtocolError("more was sent than the receiver has room for", code="credit_exceeded")
        self.sent += count


class CreditPool:
    """The receiver's room for all streams of one session."""

    def __init__(self) -> None:
        self._windows: set[ReceiveWindow] = set()
        self._shared_used = 0

    @property
    def outstanding(self) -> int:
        """Bytes that are promised and not consumed: what may have to be held at once."""
        return sum(window.outstanding for window in self._windows)

    def open(self, window_bytes: int = STREAM_WINDOW_BYTES) -> ReceiveWindow:
        """Room for one more stream; `window_bytes` is the most that it shall ever hold.

        Raises:
            UnavailableError: There are MAX_STREAMS already (`too_many_streams`).
        """
        if len(self._windows) >= MAX_STREAMS:
            raise UnavailableError(
                f"this node has {MAX_STREAMS} open streams", code="too_many_streams", hint="Close one, then try again."
            )
        window = ReceiveWindow(self, min(window_bytes, STREAM_WINDOW_BYTES))
        self._windows.add(window)
        return window

    def limit(self, held: int, wanted: int) -> int:
        """What a window that has `held` outstanding may have at most, if it would like `wanted`."""
        free = SHARED_BYTES - self._shared_used + _shared_part(held)
        return max(held, min(wanted, ASSURED_BYTES + free))

    def note(self, before: int, after: int) -> None:
        """What one window has outstanding has changed."""
        self._shared_used += _shared_part(after) - _shared_part(before)

    def forget(self, window: ReceiveWindow) -> None:
        """The stream has ended."""
        if window in self._windows:
            self._windows.discard(window)
            self.note(window.outstanding, 0)


class ReceiveWindow:
    """The receiver's half of one stream."""

    def __init__(self, pool: CreditPool, window_bytes: int) -> None:
        self._pool = pool
        self._window_bytes = window_bytes
        self._granted = 0
        self._is_closed = False
        self.received = 0
        """Offset of the next byte that will come."""
        self.consumed = 0

    @property
    def outstanding(self) -> int:
        """Bytes that are promised and not consumed."""
        return self._granted - self.consumed

    def take(self, offset: int, count: int) -> None:
        """Bytes have arrived.

        Raises:
            ProtocolError: They are not the next ones (`stream_gap`), or were never allowed (`credit_exceeded`).
        """
        if offset != self.received:
            raise ProtocolError(f"expected the bytes from {self.received} on, got {offset}", code="stream_gap")
        if self.received + count > self._granted:
            raise ProtocolError("more was sent than there is room for", code="credit_exceeded")
        self.received += count

    def consume(self, count: int) -> None:
        """Bytes were passed on and need no room any more."""
        before = self.outstanding
        self.consumed += count
        if not self._is_closed:
            self._pool.note(before, self.outstanding)

    def next_credit(self) -> int | None:
        """The offset to promise now; None while that would say too little to be worth a frame."""
        held = self.outstanding
        room = self._pool.limit(held, self._window_bytes)
        is_starving = self._granted == self.received
        if room <= held or (room - held < self._window_bytes // 4 and not is_starving):
            return None
        self._pool.note(held, room)
        self._granted = self.consumed + room
        return self._granted

    def close(self) -> None:
        """Give the room back; what was received and is not consumed may still be read."""
        self._is_closed = True
        self._pool.forget(self)


def _shared_part(outstanding: int) -> int:
    """What of a window's outstanding bytes is not covered by its assurance."""
    return max(0, outstanding - ASSURED_BYTES)

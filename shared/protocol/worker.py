"""Between executor, worker and agent on one node: what a worker is told, and what it says on its socket.

The executor hands a worker its orders on standard input. The worker's socket carries 4-byte big-endian lengths and
msgpack maps; each side reads only what it has room for, so a full socket is what stops the other.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from shared.errors import ProtocolError
from shared.protocol.frame import Frame
from shared.protocol.streams import MAX_CHUNK_BYTES, Chunk

LENGTH_BYTES: Final = 4
MAX_WORKER_FRAME_BYTES: Final = MAX_CHUNK_BYTES + 1024
WORKER_SOCKETS: Final = "/run/wcp360/streams"
"""Where the sockets of workers are; the agent may enter, a tenant may not."""


class WorkerOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one worker does, as the executor read it in a verified grant."""

    kind: str
    account: str
    uid: int
    root: str
    """The folder beneath which `path` is opened."""
    path: str
    args: bytes
    max_bytes: int
    peer_uids: tuple[int, ...]
    """Who may take the data: the agent (and root)."""


class WorkerReady(Frame, frozen=True, kw_only=True, tag="ready"):
    """The file is open; data follow."""

    takes_data: bool = False


class WorkerData(Frame, frozen=True, kw_only=True, tag="data"):
    """The next bytes, in either direction."""

    data: Chunk


class WorkerEnd(Frame, frozen=True, kw_only=True, tag="end"):
    """The worker's last word; an empty code means in order."""

    code: Annotated[str, msgspec.Meta(max_length=64)] = ""
    message: Annotated[str, msgspec.Meta(max_length=400)] = ""


FromWorker = WorkerReady | WorkerData | WorkerEnd

_ENCODER = msgspec.msgpack.Encoder()
_FROM_WORKER: msgspec.msgpack.Decoder[FromWorker] = msgspec.msgpack.Decoder(FromWorker)


def encode_worker(frame: FromWorker) -> bytes:
    """Length and body, ready to be written."""
    body = _ENCODER.encode(frame)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode_worker_length(prefix: bytes) -> int:
    """Body length of the next frame.

    Raises:
        ProtocolError: It is larger than a worker's frame can be.
    """
    length = int.from_bytes(prefix, "big")
    if length > MAX_WORKER_FRAME_BYTES:
        raise ProtocolError(f"a worker's frame of {length} bytes is too large", code="frame_too_large")
    return length


def decode_worker(body: bytes) -> FromWorker:
    """Decode a body.

    Raises:
        ProtocolError: It is none of the known frames. Workers run as tenants: nothing they say is believed unseen.
    """
    try:
        return _FROM_WORKER.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not a frame of a worker: {error}", code="bad_frame") from error

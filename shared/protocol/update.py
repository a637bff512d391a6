"""The updater's unix socket and the file in which it says how an update ended.

One request for each connection: a length and an UpdateRequest, answered with an UpdateAnswer. If that one wants the
bundle, its bytes follow, as many as the manifest says, and a second answer. What then happens restarts the one who
asked, so the end is in OUTCOME_FILE. Only bytes cross the socket: no root process opens a path that the agent controls.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from shared.errors import ProtocolError
from shared.protocol.job import ErrorBody
from shared.protocol.release import SignedRelease

UPDATER_SOCKET: Final = "/run/wcp360/updater.sock"
OUTCOME_FILE: Final = "outcome.json"
LENGTH_BYTES: Final = 4
MAX_REQUEST_BYTES: Final = 256 * 1024


class UpdateState(enum.Enum):
    """How an attempt ended."""

    UPDATED = "updated"
    ROLLED_BACK = "rolled_back"
    """The new version did not come back in time, or could not be put in place; the one before runs again."""
    REFUSED = "refused"
    """Nothing was changed."""


class UpdateRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the updater for a release; the bundle's bytes follow."""

    attempt_id: str
    """Whoever asks again with the same one is told how it ended."""
    release: SignedRelease


class UpdateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the updater goes on with it."""

    attempt_id: str
    is_accepted: bool
    wants_bundle: bool = False
    """The documents are good; now the bytes."""
    error: ErrorBody | None = None


class UpdateReport(msgspec.Struct, frozen=True, kw_only=True):
    """How an attempt ended: the content of OUTCOME_FILE, and what the controller is told."""

    attempt_id: str
    state: UpdateState
    build: str
    """The release that was asked for."""
    from_build: str
    """What ran before, and runs now unless the state is UPDATED."""
    finished_at: float
    error: ErrorBody | None = None


def encode_message(message: UpdateRequest | UpdateAnswer) -> bytes:
    """Length and body.

    Raises:
        ProtocolError: It is too large.
    """
    body = msgspec.msgpack.encode(message)
    if len(body) > MAX_REQUEST_BYTES:
        raise ProtocolError(f"a request of {len(body)} bytes is too large", code="frame_too_large")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def decode_length(prefix: bytes) -> int:
    """Length of the body that follows.

    Raises:
        ProtocolError: It is too large.
    """
    length = int.from_bytes(prefix, "big")
    if length > MAX_REQUEST_BYTES:
        raise ProtocolError(f"a request of {length} bytes is too large", code="frame_too_large")
    return length


def decode_request(body: bytes) -> UpdateRequest:
    """Read what a link asks.

    Raises:
        ProtocolError: It is no request.
    """
    try:
        return msgspec.msgpack.decode(body, type=UpdateRequest)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not an update request: {error}", code="bad_frame") from error


def decode_answer(body: bytes) -> UpdateAnswer:
    """Read what the updater answers.

    Raises:
        ProtocolError: It is no answer.
    """
    try:
        return msgspec.msgpack.decode(body, type=UpdateAnswer)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not an answer of the updater: {error}", code="bad_frame") from error

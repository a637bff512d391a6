"""What is said on the signer's unix socket: a 4-byte big-endian length, then one msgpack map.

Requests are told apart by `t` and answered in any order by their number. Unknown fields are refused: both ends are of
one release, and this is the one process that reads nothing that it does not understand whole.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from controller.fleet.identity.authorities import Arrangement
from shared.errors import (
    FleetError,
    ForbiddenError,
    InvalidInputError,
    NotFoundError,
    ProtocolError,
    RefusedError,
    UnavailableError,
)
from shared.protocol.envelope import MAX_PAYLOAD_BYTES, Signature
from shared.protocol.job import ErrorBody
from shared.protocol.release import ReleaseKey
from shared.protocol.trust import JobKey

LENGTH_BYTES: Final = 4
MAX_MESSAGE_BYTES: Final = 2 * MAX_PAYLOAD_BYTES
MAX_BATCH: Final = 256
MAX_BATCH_BYTES: Final = MAX_PAYLOAD_BYTES
"""A batch ends before the payload that would pass this, so one payload of full size still fits."""

Payload = Annotated[bytes, Meta(max_length=MAX_PAYLOAD_BYTES)]


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="t", forbid_unknown_fields=True):
    """Base of all requests."""

    n: int
    """Chosen by who asks; the answer repeats it."""


class Identify(Request, frozen=True, kw_only=True, tag="identify"):
    """Cluster and root key."""


class SignJobs(Request, frozen=True, kw_only=True, tag="jobs"):
    """Each job is judged and answered by itself."""

    payloads: Annotated[tuple[Payload, ...], Meta(max_length=MAX_BATCH)]


class SignDocument(Request, frozen=True, kw_only=True, tag="document"):
    """A trust bundle, a grant, a release's manifest, a list of release keys or a checkpoint of the audit log."""

    payload_type: str
    payload: Payload


class ListKeys(Request, frozen=True, kw_only=True, tag="keys"):
    """Public halves of job keys and release keys, and which job keys were revoked."""


class RotateJobKey(Request, frozen=True, kw_only=True, tag="rotate"):
    """A new job key."""


class RevokeJobKey(Request, frozen=True, kw_only=True, tag="revoke"):
    """No signature by this key any more."""

    kid: str


class IssueNode(Request, frozen=True, kw_only=True, tag="node"):
    """A node's certificate."""

    csr_pem: Annotated[str, Meta(max_length=16_384)]
    node_id: str


class IssueServer(Request, frozen=True, kw_only=True, tag="server"):
    """A listener's certificate."""

    csr_pem: Annotated[str, Meta(max_length=16_384)]
    names: Annotated[tuple[Annotated[str, Meta(max_length=253)], ...], Meta(min_length=1, max_length=64)]


class ListAuthorities(Request, frozen=True, kw_only=True, tag="authorities"):
    """Who is trusted and who issues."""


class ArrangeAuthorities(Request, frozen=True, kw_only=True, tag="arrange"):
    """Who shall be trusted and who shall issue."""

    arrangement: Arrangement


AnyRequest = (
    Identify
    | SignJobs
    | SignDocument
    | ListKeys
    | RotateJobKey
    | RevokeJobKey
    | IssueNode
    | IssueServer
    | ListAuthorities
    | ArrangeAuthorities
)


class SignerIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to Identify."""

    cluster_id: str
    root_kid: str
    root_public_key: bytes


class SignerKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to ListKeys."""

    jobs: tuple[JobKey, ...]
    revoked: tuple[str, ...]
    releases: tuple[ReleaseKey, ...]


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """Signatures over a payload, or why there are none."""

    signatures: tuple[Signature, ...] = ()
    error: ErrorBody | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """To one request."""

    n: int
    result: msgspec.Raw = msgspec.Raw(b"\xc0")
    """msgpack of what the request asks for; nil without one."""
    error: ErrorBody | None = None


_ENCODER = msgspec.msgpack.Encoder()
_REQUEST: msgspec.msgpack.Decoder[AnyRequest] = msgspec.msgpack.Decoder(AnyRequest)
_ANSWER = msgspec.msgpack.Decoder(Answer)


def encode_message(message: Request | Answer) -> bytes:
    """Length and body.

    Raises:
        ProtocolError: It is larger than MAX_MESSAGE_BYTES.
    """
    body = _ENCODER.encode(message)
    if len(body) > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes is too large for the signer", code="frame_too_large")
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def encode_result(result: Any) -> msgspec.Raw:
    """What an answer carries."""
    return msgspec.Raw(_ENCODER.encode(result))


def decode_length(prefix: bytes) -> int:
    """Length of the body that follows.

    Raises:
        ProtocolError: It is larger than MAX_MESSAGE_BYTES.
    """
    length = int.from_bytes(prefix, "big")
    if length > MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {length} bytes is too large for the signer", code="frame_too_large")
    return length


def decode_request(body: bytes) -> AnyRequest:
    """Decode strictly.

    Raises:
        ProtocolError: It is none of the requests.
    """
    try:
        return _REQUEST.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not a request: {error}", code="bad_frame") from error


def decode_answer(body: bytes) -> Answer:
    """Decode what the signer said.

    Raises:
        ProtocolError: It is no answer.
    """
    try:
        return _ANSWER.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"not an answer: {error}", code="bad_frame") from error


_KINDS: Final[dict[str, type[FleetError]]] = {
    kind.__name__: kind
    for kind in (InvalidInputError, ForbiddenError, NotFoundError, RefusedError, UnavailableError, ProtocolError)
}


def render_error(error: FleetError) -> ErrorBody:
    """An error as it crosses the socket: its kind travels in the context."""
    return ErrorBody(code=error.code, message=error.message, hint=error.hint, context={"kind": type(error).__name__})


def parse_error(body: ErrorBody) -> FleetError:
    """The error that the signer raised."""
    kind = _KINDS.get(str(body.context.get("kind")), UnavailableError)
    return kind(body.message, code=body.code, hint=body.hint)

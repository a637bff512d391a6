"""`python3 -m agent worker`: one worker, started by systemd as the tenant. Orders on stdin, socket on stdout."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from typing import Final

import msgspec

from agent.workers.channel import Channel, ChannelClosedError, accept_agent
from agent.workers.log_tail import LogTail
from shared.errors import FleetError, InvalidInputError
from shared.protocol.grant import KIND_LOG_TAIL
from shared.protocol.worker import WorkerOrder

MAX_ORDER_BYTES: Final = 256 * 1024
SOCKET_DESCRIPTOR: Final = 1

_log = logging.getLogger(__name__)

_KINDS: Final[dict[str, Callable[[WorkerOrder, Channel], None]]] = {
    KIND_LOG_TAIL: lambda order, channel: LogTail(order, channel).run(),
}


def run_worker(_arguments: argparse.Namespace) -> int:
    """Do what standard input says; returns the exit code."""
    try:
        order = msgspec.msgpack.decode(sys.stdin.buffer.read(MAX_ORDER_BYTES), type=WorkerOrder)
        listening = socket.socket(fileno=os.dup(SOCKET_DESCRIPTOR))
    except (msgspec.MsgspecError, OSError) as error:
        sys.stderr.write(f"the executor starts workers, and nobody else does: {error}\n")
        return 2
    try:
        require_own_uid(order)
        connection = accept_agent(listening, order.peer_uids)
    except FleetError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    with connection:
        serve(order, Channel(connection, order.max_bytes))
    return 0


def require_own_uid(order: WorkerOrder) -> None:
    """Pass when this process is the user that the grant names.

    Raises:
        InvalidInputError: It is not: whoever started it made a mistake, and it must not go on.
    """
    if os.geteuid() != order.uid or os.getuid() != order.uid:
        raise InvalidInputError(f"this worker runs as uid {os.geteuid()} and not as {order.uid}", field="uid")


def serve(order: WorkerOrder, channel: Channel) -> None:
    """Do the work and say how it ended."""
    with contextlib.suppress(ChannelClosedError):
        try:
            kind = _KINDS.get(order.kind)
            if kind is None:
                raise InvalidInputError(f"no worker does {order.kind[:40]!r}", field="kind")
            kind(order, channel)
        except FleetError as error:
            channel.end(error.code, error.message)
        except OSError as error:
            channel.end("host_error", str(error))
        else:
            channel.end()

"""`python3 -m agent updater`: the process behind wcp-updater.service. Recovers, serves requests in turn, and ends."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import logging
import os
import shutil
import socket
import sys
from typing import Final

from agent.core import sdnotify
from agent.core.server import default_allowed_uids, read_peer_uid
from agent.link.settings import NodePaths
from agent.logs import configure_logging
from agent.update.judge import Judged
from agent.update.services import SystemdServices
from agent.update.updater import BUNDLE_NAME, Updater
from shared.errors import FleetError, InvalidInputError, ProtocolError
from shared.protocol.job import ErrorBody
from shared.protocol.release import ReleaseManifest, peek_release
from shared.protocol.update import (
    LENGTH_BYTES,
    UpdateAnswer,
    UpdateRequest,
    decode_length,
    decode_request,
    encode_message,
)

IDLE_SECONDS: Final = 15.0
RECEIVE_SECONDS: Final = 120.0
"""For the whole of a bundle, from a file on the same machine."""
EXIT_NO_SOCKET: Final = 78
"""Source: sysexits.h EX_CONFIG."""
_CHUNK_BYTES: Final = 256 * 1024

_log = logging.getLogger(__name__)


def run_updater(_arguments: argparse.Namespace) -> int:
    """Run until there is nothing to do; returns the exit code."""
    configure_logging(sys.stderr)
    listening = sdnotify.take_passed_socket()
    return asyncio.run(_run(listening))


async def _run(listening: socket.socket | None) -> int:
    server = UpdaterServer(Updater(NodePaths(), SystemdServices()))
    sdnotify.notify("READY=1")
    await server.updater.recover()
    if listening is not None:
        # Without one the unit was started at boot, only to look for what was interrupted.
        await server.serve(listening, idle_seconds=IDLE_SECONDS)
    sdnotify.notify("STOPPING=1")
    return 0


class UpdaterServer:
    """Takes requests one after the other: while one is carried out, the next waits in the socket's queue."""

    def __init__(self, updater: Updater, *, allowed_uids: frozenset[int] | None = None) -> None:
        self.updater = updater
        self._allowed_uids = default_allowed_uids() if allowed_uids is None else allowed_uids
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._news = asyncio.Event()
        self._failure: Exception | None = None

    async def serve(self, listening: socket.socket, *, idle_seconds: float) -> None:
        """Serve until nobody came for this long.

        Raises:
            FleetError, OSError: An attempt could not be brought to its end; the next start goes on with it.
        """
        keep: dict[str, bool] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        server = await asyncio.start_unix_server(self._accept, sock=listening, **keep)  # type: ignore[arg-type] # from 3.13 on
        async with server:
            await self._rest(idle_seconds)
        if self._failure is not None:
            raise self._failure

    async def _rest(self, idle_seconds: float) -> None:
        while self._failure is None:
            self._news.clear()
            try:
                async with asyncio.timeout(idle_seconds):
                    await self._news.wait()
            except TimeoutError:
                if not self._waiting:
                    return

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._waiting += 1
        try:
            if read_peer_uid(writer) not in self._allowed_uids:
                _log.warning("refused a connection of uid %d", read_peer_uid(writer))
                return
            async with self._turn:
                await self._serve_one(reader, writer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ProtocolError) as error:
            _log.warning("a request was not understood: %s", error)
        finally:
            writer.close()
            self._waiting -= 1
            self._news.set()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(RECEIVE_SECONDS):
            request = decode_request(await reader.readexactly(decode_length(await reader.readexactly(LENGTH_BYTES))))
        ended = self.updater.files.find_outcome()
        if ended is not None and ended.attempt_id == request.attempt_id:
            await _answer(writer, request, None)  # asked twice: how it ended is in the file
            return
        try:
            judged = self.updater.judge(request.release)
            if not judged.is_running:
                await _answer(writer, request, None, wants_bundle=True)
                async with asyncio.timeout(RECEIVE_SECONDS):
                    await self._receive_bundle(reader, judged.manifest)
        except FleetError as error:
            self.updater.refuse(request.attempt_id, _peek_build(request), error)
            await _answer(writer, request, error)
            return
        await _answer(writer, request, None)
        writer.close()  # the agent is about to be stopped; nothing of this may depend on it any more
        try:
            await self._go_on(request, judged)
        except (FleetError, OSError) as error:
            self._failure = error

    async def _go_on(self, request: UpdateRequest, judged: Judged) -> None:
        if judged.is_running:
            self.updater.note_running(request.attempt_id, judged.manifest.build)
        else:
            await self.updater.carry_out(request.attempt_id, judged)

    async def _receive_bundle(self, reader: asyncio.StreamReader, manifest: ReleaseManifest) -> None:
        """Into the updater's own folder, counted and hashed on the way.

        Raises:
            InvalidInputError: It is not the bundle that the manifest names.
        """
        folder = self.updater.files.incoming
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True)
        digest, left = hashlib.sha256(), manifest.size_bytes
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(folder / BUNDLE_NAME, flags, 0o600), "wb") as file:
            while left:
                chunk = await reader.read(min(left, _CHUNK_BYTES))
                if not chunk:
                    raise InvalidInputError("the bundle ends too early")
                digest.update(chunk)
                file.write(chunk)
                left -= len(chunk)
        if digest.hexdigest() != manifest.sha256:
            raise InvalidInputError("the bundle is not the one that was signed", code="wrong_bundle")


async def _answer(
    writer: asyncio.StreamWriter, request: UpdateRequest, error: FleetError | None, *, wants_bundle: bool = False
) -> None:
    body = None if error is None else ErrorBody(code=error.code, message=error.message, hint=error.hint)
    answer = UpdateAnswer(
        attempt_id=request.attempt_id, is_accepted=error is None, wants_bundle=wants_bundle, error=body
    )
    writer.write(encode_message(answer))
    await writer.drain()


def _peek_build(request: UpdateRequest) -> str:
    try:
        return peek_release(request.release.manifest).build
    except InvalidInputError:
        return ""

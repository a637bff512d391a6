"""The link's part of an update: fetch the bundle, hand it to the updater, and tell the controller how it ended.

It decides nothing: a link that was taken over can delay an update or ask for nonsense, and the updater refuses that.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import logging
import random
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from agent.link.enrolment_http import USER_AGENT, explain_connection_failure, parse_endpoint
from agent.link.settings import AgentSettings, NodePaths
from shared.errors import FleetError, InvalidInputError, UnavailableError
from shared.protocol.frames import OfferUpdate
from shared.protocol.job import ErrorBody
from shared.protocol.release import ReleaseManifest, peek_release
from shared.protocol.update import (
    LENGTH_BYTES,
    OUTCOME_FILE,
    UPDATER_SOCKET,
    UpdateAnswer,
    UpdateReport,
    UpdateRequest,
    UpdateState,
    decode_answer,
    decode_length,
    encode_message,
)

HTTP_SECONDS: Final = 30.0
FETCH_ATTEMPTS: Final = 5
FETCH_PAUSE_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 300.0
"""The updater receives and judges; it may first finish another request."""
WATCH_SECONDS: Final = 2.0
_CHUNK_BYTES: Final = 256 * 1024
_REPORTED: Final = "reported"
_BUNDLE: Final = "bundle.tar.gz"

_log = logging.getLogger(__name__)

Keep = Callable[[UpdateReport], Awaitable[bool]]
"""Keeps a report until the controller has it; False when it could not."""


class UpdateTaker(Protocol):
    """What the link does with releases; the simulator has its own."""

    @property
    def build(self) -> str:
        """The build that runs; empty outside of a bundle."""
        ...

    def offer(self, offer: OfferUpdate) -> None:
        """Take up a release, unless one is being taken."""
        ...

    async def run(self, keep: Keep) -> None:
        """Until cancelled: report each end of an update once."""
        ...


class NoUpdates:
    """For an agent that is no bundle."""

    build = ""

    def offer(self, offer: OfferUpdate) -> None:
        _log.warning("the release %s was offered, and this agent cannot be updated", offer.attempt_id)

    async def run(self, keep: Keep) -> None:  # noqa: ARG002 - there is never anything to keep
        await asyncio.Event().wait()


def read_own_build(program: Path) -> str:
    """What bundle.json beside this code says; empty in a checkout."""
    try:
        found: dict[str, Any] = msgspec.json.decode((program / "bundle.json").read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError):
        return ""
    return str(found.get("build", ""))


class Updates:
    """Of a real node."""

    def __init__(self, settings: AgentSettings, paths: NodePaths, *, updater_socket: str = UPDATER_SOCKET) -> None:
        self._settings = settings
        self._folder = paths.update_dir
        self._outcome = paths.updater_state_dir / OUTCOME_FILE
        self._socket = updater_socket
        self._offers: asyncio.Queue[OfferUpdate] = asyncio.Queue(1)
        self._attempt_id = ""
        self.build = read_own_build(Path(__file__).resolve().parent.parent.parent)

    def offer(self, offer: OfferUpdate) -> None:
        """The same attempt is offered again after each reconnect; only a new one is taken up."""
        ended = self._find_outcome()
        if ended is not None and ended.attempt_id == offer.attempt_id:
            # It has ended, and the controller does not know: say it again, and do nothing again.
            (self._folder / _REPORTED).unlink(missing_ok=True)
            return
        if offer.attempt_id != self._attempt_id and not self._offers.full():
            self._attempt_id = offer.attempt_id
            self._offers.put_nowait(offer)

    async def run(self, keep: Keep) -> None:
        """Carry out offers, and report what the updater wrote down, also what ended before this process began."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._report_for_ever(keep))
            group.create_task(self._take_for_ever(keep))

    # --- reports ------------------------------------------------------------------------------------------------------

    async def _report_for_ever(self, keep: Keep) -> None:
        while True:
            report = self._find_unreported()
            if report is not None and await keep(report):
                self._note_reported(report)
            await asyncio.sleep(WATCH_SECONDS)

    def _find_outcome(self) -> UpdateReport | None:
        try:
            return msgspec.json.decode(self._outcome.read_bytes(), type=UpdateReport)
        except (OSError, msgspec.MsgspecError):
            return None

    def _find_unreported(self) -> UpdateReport | None:
        report = self._find_outcome()
        if report is None:
            return None
        with contextlib.suppress(OSError):
            if (self._folder / _REPORTED).read_text(encoding="utf-8") == _name(report):
                return None
        return report

    def _note_reported(self, report: UpdateReport) -> None:
        """Lost, it is only said once more."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            (self._folder / _REPORTED).write_text(_name(report), encoding="utf-8")
        _log.info("the update to %s: %s", report.build, report.state.value)

    # --- offers -------------------------------------------------------------------------------------------------------

    async def _take_for_ever(self, keep: Keep) -> None:
        while True:
            offer = await self._offers.get()
            try:
                await self._take(offer)
            except FleetError as error:
                await self._refuse(keep, offer, error)
            except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
                message = str(error) or type(error).__name__
                await self._refuse(keep, offer, UnavailableError(message, code="updater_unavailable"))
            # Offered again as the same attempt, it is tried again.
            self._attempt_id = ""

    async def _refuse(self, keep: Keep, offer: OfferUpdate, error: FleetError) -> None:
        _log.warning("the update %s failed: %s", offer.attempt_id, error)
        await keep(self._refusal(offer, error.code, error.message))

    async def _take(self, offer: OfferUpdate) -> None:
        manifest = peek_release(offer.release.manifest)
        _log.info("release %s is offered (%s)", manifest.build, offer.attempt_id)
        if manifest.build != self.build:
            await self._fetch_patiently(offer.path, manifest)
        answer = await self._ask(offer)
        shutil.rmtree(self._folder / manifest.build, ignore_errors=True)
        (self._folder / _BUNDLE).unlink(missing_ok=True)
        _log.info("the updater %s it", "takes" if answer.is_accepted else "refuses")
        # How it goes on is in the updater's file, and so is why it does not.
        await self._wait_for_outcome(offer.attempt_id)

    async def _wait_for_outcome(self, attempt_id: str) -> None:
        """Nothing else is taken meanwhile. Usually this process ends first."""
        while (ended := self._find_outcome()) is None or ended.attempt_id != attempt_id:  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(WATCH_SECONDS)

    async def _fetch_patiently(self, path: str, manifest: ReleaseManifest) -> None:
        for attempt in range(1, FETCH_ATTEMPTS + 1):
            try:
                return await asyncio.to_thread(self._fetch, path, manifest)
            except (UnavailableError, OSError) as error:
                if attempt == FETCH_ATTEMPTS:
                    raise UnavailableError(
                        f"the bundle cannot be fetched: {error}", code="bundle_unavailable"
                    ) from error
                _log.warning("the bundle cannot be fetched: %s; trying again", error)
            await asyncio.sleep(FETCH_PAUSE_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - spreads load
        raise InvalidInputError("no attempt was made")

    def _fetch(self, path: str, manifest: ReleaseManifest) -> None:
        """The bundle into our own folder; its hash here only spares the updater a bad one.

        Raises:
            UnavailableError: Nobody answers, or with something else.
            OSError: The disk.
        """
        self._folder.mkdir(mode=0o700, exist_ok=True)
        target = self._folder / _BUNDLE
        endpoint = parse_endpoint(self._settings.controller_url, scheme="https")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_verify_locations(self._settings.ca_file)
        connection = http.client.HTTPSConnection(endpoint.host, endpoint.port, timeout=HTTP_SECONDS, context=context)
        try:
            connection.request("GET", path, headers={"User-Agent": USER_AGENT})
            response = connection.getresponse()
            if response.status != http.client.OK:
                raise UnavailableError(f"{endpoint} answered HTTP {response.status} to {path}")
            digest = _copy(response, target, manifest.size_bytes)
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(explain_connection_failure(error, endpoint).message) from error
        finally:
            connection.close()
        if digest != manifest.sha256:
            raise UnavailableError("what was fetched is not the bundle that the release names")

    async def _ask(self, offer: OfferUpdate) -> UpdateAnswer:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(self._socket)
            try:
                writer.write(encode_message(UpdateRequest(attempt_id=offer.attempt_id, release=offer.release)))
                answer = await _read_answer(reader)
                if answer.wants_bundle:
                    await self._send_bundle(writer)
                    answer = await _read_answer(reader)
                return answer
            finally:
                writer.close()

    async def _send_bundle(self, writer: asyncio.StreamWriter) -> None:
        with (self._folder / _BUNDLE).open("rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                writer.write(chunk)
                await writer.drain()

    def _refusal(self, offer: OfferUpdate, code: str, message: str) -> UpdateReport:
        try:
            build = peek_release(offer.release.manifest).build
        except InvalidInputError:
            build = ""
        return UpdateReport(
            attempt_id=offer.attempt_id,
            state=UpdateState.REFUSED,
            build=build,
            from_build=self.build,
            finished_at=time.time(),
            error=ErrorBody(code=code, message=message),
        )


async def _read_answer(reader: asyncio.StreamReader) -> UpdateAnswer:
    return decode_answer(await reader.readexactly(decode_length(await reader.readexactly(LENGTH_BYTES))))


def _copy(response: http.client.HTTPResponse, target: Path, size_bytes: int) -> str:
    digest, left = hashlib.sha256(), size_bytes
    with target.open("wb") as file:
        while left and (chunk := response.read(min(left, _CHUNK_BYTES))):
            digest.update(chunk)
            file.write(chunk)
            left -= len(chunk)
    return digest.hexdigest()


def _name(report: UpdateReport) -> str:
    return f"{report.attempt_id} {report.state.value} {report.finished_at}"

"""The steps of an update, forwards and back. Every step is on the disk before the next one, and safe to repeat."""

from __future__ import annotations

import asyncio
import logging
import platform
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agent.core.identity import load_identity
from agent.install import code
from agent.install.units import unit_dir
from agent.link.settings import NodePaths
from agent.link.setup_errors import SetupError
from agent.link.status_file import LinkState, LinkStatus
from agent.update import faults
from agent.update.judge import Judged, Trusted, effective_now, judge_release
from agent.update.live import put_units, read_link_status, read_units
from agent.update.services import NodeServices, summarise_status
from agent.update.state import Attempt, Floor, Phase, UpdaterFiles, sync_folder
from agent.update.unpack import unpack_bundle
from shared.errors import CommandError, FleetError, InvalidInputError, UnavailableError
from shared.protocol.job import ErrorBody
from shared.protocol.release import SignedRelease
from shared.protocol.update import UpdateReport, UpdateState

WELCOME_SECONDS: Final = 120.0
"""A new version that has not reached the controller by then is taken back."""
RETURN_SECONDS: Final = 60.0
"""How long the old version is watched after a return; it stays in any case."""
IDLE_SECONDS: Final = 600.0
"""How long running jobs are waited for, while the agent goes on serving; then the update is refused and asked again."""
POLL_SECONDS: Final = 0.5
SPACE_FACTOR: Final = 10
"""A bundle and all that is made of it, byte code included, is smaller than this many times the bundle."""
BUNDLE_NAME: Final = "bundle.tar.gz"

_log = logging.getLogger(__name__)


class Waits(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds; tests take fewer."""

    welcome: float = WELCOME_SECONDS
    returned: float = RETURN_SECONDS
    idle: float = IDLE_SECONDS
    poll: float = POLL_SECONDS


class Updater:
    """One at a time; `services` is the node, `paths` where it lies."""

    def __init__(
        self,
        paths: NodePaths,
        services: NodeServices,
        *,
        waits: Waits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._paths = paths
        self._services = services
        self._waits = waits or Waits()
        self._clock = clock
        self.files = UpdaterFiles(paths.updater_state_dir)

    @property
    def _program_dir(self) -> Path:
        return self._paths.program_dir

    # --- before anything is touched -----------------------------------------------------------------------------------

    def judge(self, release: SignedRelease) -> Judged:
        """Whether the release may be taken; its documents raise the floor even if it is the running one.

        Raises:
            RefusedError, InvalidInputError: See judge_release.
            UnavailableError: This machine is no enrolled node, or its disk is too full.
        """
        floor = self.files.read_floor()
        judged = judge_release(release, self._read_trusted(floor), now=effective_now(self._clock(), floor))
        self.files.raise_floor(judged.floor)
        needed = judged.manifest.size_bytes * SPACE_FACTOR
        if not judged.is_running and shutil.disk_usage(self._program_dir).free < needed:
            raise UnavailableError(
                f"less than {needed // 1024**2} MiB are free in {self._program_dir}", code="no_space"
            )
        return judged

    def _read_trusted(self, floor: Floor) -> Trusted:
        identity = load_identity(self._paths.executor_state_dir)
        build = code.find_current_build(self._program_dir)
        if identity is None or build is None:
            raise UnavailableError("this machine is not an enrolled node", code="not_enrolled")
        try:
            info = code.read_bundle_info(self._program_dir / "versions" / build)
        except SetupError as error:
            raise UnavailableError(error.message, code="not_enrolled") from error
        return Trusted(
            cluster_id=identity.cluster_id,
            root_keys=identity.public_root_keys(),
            architecture=platform.machine(),
            version=info.version,
            build=info.build,
            floor=floor,
        )

    def refuse(self, attempt_id: str, build: str, error: FleetError) -> UpdateReport:
        """Nothing was changed."""
        _log.warning("update %s refused: %s", build, error.message)
        shutil.rmtree(self.files.incoming, ignore_errors=True)
        body = ErrorBody(code=error.code, message=error.message, hint=error.hint)
        return self._report(UpdateState.REFUSED, attempt_id, build, body)

    def note_running(self, attempt_id: str, build: str) -> UpdateReport:
        """The release runs already: asked twice, or put there by the installer."""
        return self._report(UpdateState.UPDATED, attempt_id, build, None)

    # --- forwards -----------------------------------------------------------------------------------------------------

    async def carry_out(self, attempt_id: str, judged: Judged) -> UpdateReport:
        """Take the received bundle, whose hash is the manifest's, all the way. Never raises what is not a mistake."""
        try:
            attempt = await self._prepare(attempt_id, judged)
            await self._wait_until_idle()
        except (FleetError, OSError) as error:
            failure = error if isinstance(error, FleetError) else UnavailableError(f"the disk: {error}")
            self._forget_new(judged.manifest.build)
            report = self.refuse(attempt_id, judged.manifest.build, failure)
            self.files.end_attempt()
            return report
        return await self._switch(attempt)

    async def _prepare(self, attempt_id: str, judged: Judged) -> Attempt:
        manifest = judged.manifest
        faults.at("update.before_unpack")
        tree = self.files.incoming / "tree"
        await asyncio.to_thread(unpack_bundle, self.files.incoming / BUNDLE_NAME, tree)
        faults.at("update.after_unpack")
        info = code.read_bundle_info(tree)
        if (info.build, info.version, info.capability) != (manifest.build, manifest.version, manifest.capability):
            raise InvalidInputError(f"the bundle says that it is {info.build}, the release {manifest.build}")
        # What an earlier attempt left may be half of it.
        self._forget_new(manifest.build)
        await asyncio.to_thread(self._install, tree, info)
        faults.at("update.after_install")
        program = self._program_dir / "versions" / manifest.build
        try:
            await self._services.self_test(program)
        except CommandError as error:
            raise UnavailableError(f"its self-test fails: {error.message}", code="self_test_failed") from error
        attempt = Attempt(
            attempt_id=attempt_id,
            phase=Phase.PREPARED,
            number=manifest.number,
            version=manifest.version,
            build=manifest.build,
            from_build=code.find_current_build(self._program_dir) or "",
            units_before=read_units(program / "units", unit_dir(self._paths.root)),
        )
        self.files.save_attempt(attempt)
        faults.at("update.after_prepared")
        return attempt

    def _install(self, tree: Path, info: code.BundleInfo) -> None:
        code.ensure_version(tree, info, self._program_dir)
        shutil.rmtree(self.files.incoming, ignore_errors=True)
        for path in (self._program_dir / "versions" / info.build).rglob("*"):
            # Renamed files without their content are what a power cut leaves of code that nobody has synced.
            if path.is_file():
                code.sync_file(path)
        sync_folder(self._program_dir / "versions")

    async def _wait_until_idle(self) -> None:
        deadline = time.monotonic() + self._waits.idle
        while not await self._services.is_idle():
            if time.monotonic() > deadline:
                raise UnavailableError("the executor was never idle", code="node_busy")
            await asyncio.sleep(self._waits.poll)

    async def _switch(self, attempt: Attempt) -> UpdateReport:
        attempt = self._enter(attempt, Phase.SWITCHING)
        faults.at("update.after_switching")
        try:
            await self._services.stop()
            faults.at("update.after_stop")
            program = self._program_dir / "versions" / attempt.build
            put_units(read_units(program / "units", program / "units"), unit_dir(self._paths.root))
            faults.at("update.after_units")
            self._point(code.CURRENT, attempt.build)
            faults.at("update.after_link")
            attempt = self._enter(attempt, Phase.PROBATION)
            faults.at("update.after_probation")
            return await self._prove(attempt)
        except (FleetError, OSError) as error:
            return await self._return(attempt, f"it could not be put in place: {error}")

    async def _prove(self, attempt: Attempt) -> UpdateReport:
        await self._services.start()
        faults.at("update.after_start")
        status = await self._wait_for_welcome(attempt.build, self._waits.welcome)
        if status is None or status.state is not LinkState.CONNECTED or status.build != attempt.build:
            said = f"{summarise_status(status)}; systemd: {await self._services.describe_agent()}"
            return await self._return(attempt, f"no welcome within {self._waits.welcome:.0f} s; {said}")
        faults.at("update.after_welcome")
        return self._commit(self._enter(attempt, Phase.COMMITTING))

    async def _wait_for_welcome(self, build: str, seconds: float) -> LinkStatus | None:
        """What the link said when it was connected, or at the end of the time."""
        deadline = time.monotonic() + seconds
        while True:
            status = read_link_status(self._paths.status_json)
            is_there = status is not None and status.state is LinkState.CONNECTED and status.build == build
            if is_there or time.monotonic() > deadline:
                return status
            await asyncio.sleep(self._waits.poll)

    def _commit(self, attempt: Attempt) -> UpdateReport:
        faults.at("update.after_committing")
        self.files.raise_floor(Floor(number=attempt.number))
        faults.at("update.after_floor")
        self._point(code.UPDATER, attempt.build)
        faults.at("update.after_own_link")
        report = self._report(UpdateState.UPDATED, attempt.attempt_id, attempt.build, None, from_=attempt.from_build)
        faults.at("update.after_outcome")
        self.files.end_attempt()
        faults.at("update.after_end")
        code.prune_versions(self._program_dir)
        _log.info("updated from %s to %s", attempt.from_build, attempt.build)
        return report

    # --- back ---------------------------------------------------------------------------------------------------------

    async def _return(self, attempt: Attempt, reason: str) -> UpdateReport:
        _log.error("going back to %s: %s", attempt.from_build, reason)
        error = ErrorBody(code="update_failed", message=reason[:2000])
        attempt = self._enter(msgspec.structs.replace(attempt, error=error), Phase.RETURNING)
        faults.at("return.after_returning")
        await self._stop_somehow()
        faults.at("return.after_stop")
        put_units(attempt.units_before, unit_dir(self._paths.root))
        faults.at("return.after_units")
        self._point(code.CURRENT, attempt.from_build)
        faults.at("return.after_link")
        await self._services.start()
        faults.at("return.after_start")
        await self._wait_for_welcome(attempt.from_build, self._waits.returned)
        report = self._report(UpdateState.ROLLED_BACK, attempt.attempt_id, attempt.build, attempt.error)
        faults.at("return.after_outcome")
        self.files.end_attempt()
        faults.at("return.after_end")
        self._forget_new(attempt.build)
        return report

    async def _stop_somehow(self) -> None:
        try:
            await self._services.stop()
        except CommandError as error:
            # systemd ends it at the latest after its own time limit; the old version is put in place all the same.
            _log.warning("the new version does not stop: %s", error.message)

    # --- after a crash ------------------------------------------------------------------------------------------------

    async def recover(self) -> UpdateReport | None:
        """End an attempt that was interrupted: forwards if it was proven, else back; None when there was none."""
        shutil.rmtree(self.files.incoming, ignore_errors=True)
        attempt = self.files.find_attempt()
        if attempt is None:
            return None
        _log.warning("an update to %s was interrupted in phase %s", attempt.build, attempt.phase.value)
        match attempt.phase:
            case Phase.PREPARED:
                error = UnavailableError("the machine went down before the switch", code="update_interrupted")
                report = self.refuse(attempt.attempt_id, attempt.build, error)
                self.files.end_attempt()
                self._forget_new(attempt.build)
                return report
            case Phase.SWITCHING:
                return await self._return(attempt, "the machine went down in the middle of the switch")
            case Phase.PROBATION:
                return await self._prove(attempt)
            case Phase.COMMITTING:
                return self._commit(attempt)
            case Phase.RETURNING:
                return await self._return(attempt, attempt.error.message if attempt.error else "interrupted")

    # --- small things -------------------------------------------------------------------------------------------------

    def _enter(self, attempt: Attempt, phase: Phase) -> Attempt:
        return self.files.save_attempt(msgspec.structs.replace(attempt, phase=phase))

    def _point(self, link: str, build: str) -> None:
        code.ensure_current(self._program_dir, build, link=link)
        sync_folder(self._program_dir)

    def _forget_new(self, build: str) -> None:
        linked = {code.find_current_build(self._program_dir, link=link) for link in (code.CURRENT, code.UPDATER)}
        if build not in linked:
            shutil.rmtree(self._program_dir / "versions" / build, ignore_errors=True)

    def _report(
        self, state: UpdateState, attempt_id: str, build: str, error: ErrorBody | None, *, from_: str | None = None
    ) -> UpdateReport:
        report = UpdateReport(
            attempt_id=attempt_id,
            state=state,
            build=build,
            from_build=from_ if from_ is not None else code.find_current_build(self._program_dir) or "",
            finished_at=self._clock(),
            error=error,
        )
        self.files.save_outcome(report)
        return report

"""Releases of the agent: bundles that this controller vouches for, and what it signs about them."""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.enrolment.installer import BUNDLE_NAME
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from controller.fleet.rollouts.models import Release
from controller.fleet.signing.signer import Signer
from shared.errors import ConflictError, InvalidInputError, NotFoundError, UnavailableError
from shared.protocol.release import (
    MAX_BUNDLE_BYTES,
    BuildId,
    ReleaseKeys,
    ReleaseManifest,
    SignedRelease,
    encode_release_document,
    parse_version,
)

MANIFEST_NAME: Final = "manifest.json"
FOLDER: Final = "releases"
LIFETIME: Final = timedelta(days=30)
"""A manifest that an attacker holds back is worthless after that; ours are signed anew at half of it."""
KEYS_LIFETIME: Final = timedelta(days=60)
_CHUNK_BYTES: Final = 1024 * 1024


class BundleManifest(msgspec.Struct, frozen=True, kw_only=True):
    """manifest.json beside the bundle (packaging/bundle)."""

    version: str
    build: BuildId
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_BUNDLE_BYTES)]
    architecture: str
    capability: int = 1


class ReleaseView(msgspec.Struct, frozen=True, kw_only=True):
    """A release of the agent."""

    id: str
    number: Annotated[int, Meta(description="Counts the releases of this fleet; nodes never go back to a lower one.")]
    version: str
    build: str
    sha256: str
    size_bytes: int
    capability: Annotated[int, Meta(description="What it can do on the wire; see shared/protocol/capability.py.")]
    architecture: str
    min_from: Annotated[str, Meta(description="Lowest version that can be updated to it in one step.")]
    note: str
    signed_until: Annotated[datetime, Meta(description="When its manifest expires; it is signed anew before.")]
    created_at: datetime


class ReleasePage(msgspec.Struct, frozen=True, kw_only=True):
    """Releases, newest first."""

    items: tuple[ReleaseView, ...]
    next_cursor: str | None


class ReleaseCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Register the bundle that lies in the controller's bundle folder."""

    min_from: Annotated[
        str,
        Meta(max_length=32, description="Lowest version that can be updated to it in one step.", examples=["0.1.0"]),
    ] = "0.0.0"
    note: Annotated[str, Meta(max_length=500, examples=["Faster drift checks."])] = ""


def render_release(row: Release) -> ReleaseView:
    """The view of a release."""
    return ReleaseView(**{name: getattr(row, name) for name in ReleaseView.__struct_fields__})


@dataclass(frozen=True, slots=True, kw_only=True)
class Releases:
    """Use cases; each runs in the transaction of its context."""

    bundle_dir: Path
    signer: Signer
    record: Recorder

    async def create(self, op: FleetOp, params: ReleaseCreate) -> Release:
        """Register and sign the present bundle.

        Raises:
            ForbiddenError
            UnavailableError: There is no bundle, or it is being built.
            ConflictError: It is registered already, or its version is older than a registered one's.
            InvalidInputError: `min_from` is no version, or newer than the bundle.
        """
        op.actor.require("releases", "write")
        manifest = read_bundle_manifest(self.bundle_dir)
        if await find_build(op.session, manifest.build) is not None:
            raise ConflictError(f"the release {manifest.build} is registered already")
        return await self._add(op, manifest, params)

    async def ensure_own(self, op: FleetOp) -> Release | None:
        """Register the bundle that this controller serves, unless it is; None when there is none that could be."""
        try:
            manifest = read_bundle_manifest(self.bundle_dir)
            if await find_build(op.session, manifest.build) is not None:
                return None
            return await self._add(op, manifest, ReleaseCreate(note="Served by the controller at its start."))
        except (UnavailableError, ConflictError):
            return None

    async def _add(self, op: FleetOp, manifest: BundleManifest, params: ReleaseCreate) -> Release:
        require_min_from(params.min_from, manifest.version)
        newest = await find_newest(op.session, manifest.architecture)
        if newest is not None and parse_version(newest.version) > parse_version(manifest.version):
            raise ConflictError(
                f"{manifest.version} is older than the release {newest.build}",
                hint="Nodes never go back. Build the old code with a higher version.",
            )
        keep_bundle(self.bundle_dir, manifest)
        highest = (await op.session.execute(select(func.max(Release.number)))).scalar_one_or_none() or 0
        row = Release(
            number=highest + 1,
            min_from=params.min_from,
            note=params.note,
            keys_version=0,
            signed=b"",
            signed_until=op.now,
            **msgspec.structs.asdict(manifest),
        )
        await self._sign(op.session, row, now=op.now)
        op.session.add(row)
        await op.session.flush()
        after = {"number": row.number, "build": row.build, "sha256": row.sha256, "min_from": row.min_from}
        note = ChangeNote(action="release.create", target=f"release/{row.id}", target_name=row.build, after=after)
        self.record(op, note)
        return row

    async def ensure_signed(self, session: AsyncSession, row: Release, *, now: datetime) -> SignedRelease:
        """The release's documents, signed anew when half of their time is over.

        Raises:
            UnavailableError: The signer does not answer.
        """
        if row.signed_until - now < LIFETIME / 2:
            await self._sign(session, row, now=now)
        return msgspec.msgpack.decode(row.signed, type=SignedRelease)

    async def _sign(self, session: AsyncSession, row: Release, *, now: datetime) -> None:
        highest = (await session.execute(select(func.max(Release.keys_version)))).scalar_one_or_none() or 0
        keys = ReleaseKeys(
            cluster_id=self.signer.cluster_id,
            # Grows with the time, and never falls when a replica's clock is behind.
            version=max(int(now.timestamp()), highest),
            issued_at=now.timestamp(),
            expires_at=(now + KEYS_LIFETIME).timestamp(),
            keys=await self.signer.current_release_keys(),
        )
        manifest = ReleaseManifest(
            cluster_id=self.signer.cluster_id,
            number=row.number,
            version=row.version,
            build=row.build,
            sha256=row.sha256,
            size_bytes=row.size_bytes,
            capability=row.capability,
            architecture=row.architecture,
            min_from=row.min_from,
            issued_at=now.timestamp(),
            expires_at=(now + LIFETIME).timestamp(),
        )
        signed = SignedRelease(
            keys=await self.signer.sign_release_keys(encode_release_document(keys)),
            manifest=await self.signer.sign_release(encode_release_document(manifest)),
        )
        row.keys_version, row.signed, row.signed_until = keys.version, msgspec.msgpack.encode(signed), now + LIFETIME

    def find_bundle(self, build: str) -> Path:
        """File of a registered release.

        Raises:
            NotFoundError: There is no such file.
        """
        path = bundle_path(self.bundle_dir, build)
        if not path.is_file():
            raise NotFoundError(f"there is no release {build[:64]!r}")
        return path


def require_min_from(min_from: str, version: str) -> None:
    """Pass when a release of this version can take over from there.

    Raises:
        InvalidInputError: It is no version, or a newer one.
    """
    try:
        is_newer = parse_version(min_from) > parse_version(version)
    except InvalidInputError as error:
        raise InvalidInputError(error.message, field="min_from") from error
    if is_newer:
        raise InvalidInputError(f"{min_from} is newer than {version}", field="min_from")


async def get_release(session: AsyncSession, release_id: str) -> Release:
    """The release.

    Raises:
        NotFoundError: There is none.
    """
    row = await session.get(Release, release_id)
    if row is None:
        raise NotFoundError(f"there is no release {release_id[:80]!r}")
    return row


async def find_build(session: AsyncSession, build: str) -> Release | None:
    """The release with this build."""
    return (await session.execute(select(Release).where(Release.build == build))).scalar_one_or_none()


async def find_newest(session: AsyncSession, architecture: str | None = None) -> Release | None:
    """The release with the highest number."""
    statement = select(Release).order_by(Release.number.desc()).limit(1)
    if architecture is not None:
        statement = statement.where(Release.architecture == architecture)
    return (await session.execute(statement)).scalar_one_or_none()


def bundle_path(bundle_dir: Path, build: str) -> Path:
    """Where the bytes of a release are kept; nothing of the name leads elsewhere.

    Raises:
        NotFoundError: This can be no build.
    """
    try:
        msgspec.convert(build, BuildId)
    except msgspec.ValidationError as error:
        raise NotFoundError("there is no such release") from error
    return bundle_dir / FOLDER / f"{build}.tar.gz"


def download_path(build: str) -> str:
    """Where a node finds the bytes, below the controller's URL."""
    return f"/bundle/releases/{build}.tar.gz"


def read_bundle_manifest(bundle_dir: Path) -> BundleManifest:
    """What lies in the bundle folder.

    Raises:
        UnavailableError: It is not complete.
    """
    try:
        return msgspec.json.decode((bundle_dir / MANIFEST_NAME).read_bytes(), type=BundleManifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise UnavailableError(
            f"the agent bundle is not complete: {MANIFEST_NAME} is missing or damaged",
            hint="Build it (make bundle) or reinstall the controller's package.",
        ) from error


def keep_bundle(bundle_dir: Path, manifest: BundleManifest) -> Path:
    """Keep the bytes of a release, which the next build of the bundle does not replace.

    Raises:
        UnavailableError: The bundle is not the one of the manifest, or the disk does not take it.
    """
    target = bundle_path(bundle_dir, manifest.build)
    if target.is_file() and _hash(target) == manifest.sha256:
        return target
    temporary = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        target.parent.mkdir(mode=0o755, exist_ok=True)
        shutil.copyfile(bundle_dir / BUNDLE_NAME, temporary)
        if _hash(temporary) != manifest.sha256:
            temporary.unlink()
            raise UnavailableError(
                "the bundle is not the one that its manifest names", hint="Is it being built? Try again in a moment."
            )
        temporary.replace(target)
    except OSError as error:
        raise UnavailableError(f"the bundle cannot be kept: {error}") from error
    return target


def _hash(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()

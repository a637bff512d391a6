"""What the executor's tests share: a host on a folder, a module that writes files through actions, keys and jobs."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
import uuid
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.contract import actions
from agent.contract.actions import ConfigTree
from agent.contract.facts import PathFact, UserFact
from agent.contract.module import Module, Plan, Verification
from agent.core.context import NodeContext
from agent.core.executor import Executor
from agent.core.identity import Identity, TrustStore
from agent.core.journal import Journal
from agent.core.registry import Registry
from shared.errors import BugError, CommandError, ConfigTestError
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, Envelope, sign_envelope
from shared.protocol.job import ACTION_CONVERGE, Job, JobState, Proof, encode_job
from shared.protocol.local import FromExecutor, JobAccepted, JobFinished, SubmitJob
from shared.protocol.trust import JobKey, TrustBundle, encode_trust_bundle
from shared.specs.account import AccountSpec
from shared.specs.base import Presence
from shared.specs.manifest import Manifest, encode_manifest
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec, php_socket_path
from shared.specs.site import SiteSpec

NOW = 1_800_000_000.0
CLUSTER = "cluster-1"
NODE = "node-1"
UID = 20_001


def key_of(seed: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed.encode()).digest())


ROOT_KEY = key_of("root")
JOB_KEY = key_of("job")


# --- keys, bundles, jobs ----------------------------------------------------------------------------------------------


def public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


def job_key(kid: str = "job-1", key: Ed25519PrivateKey = JOB_KEY, **values) -> JobKey:
    defaults = {"kid": kid, "public_key": public(key), "not_before": NOW - 86_400, "expires_at": NOW + 86_400}
    return JobKey(**{**defaults, **values})


def bundle(**values) -> TrustBundle:
    defaults = {
        "cluster_id": CLUSTER,
        "version": 1,
        "issued_at": NOW - 3600,
        "expires_at": NOW + 10 * 86_400,
        "ca_certificates": (b"ca",),
        "job_keys": (job_key(),),
    }
    return TrustBundle(**{**defaults, **values})


def signed_bundle(trust: TrustBundle, key: Ed25519PrivateKey = ROOT_KEY) -> Envelope:
    return sign_envelope(TRUST_TYPE, encode_trust_bundle(trust), {"root-1": key})


def identity(**values) -> Identity:
    defaults = {"cluster_id": CLUSTER, "node_id": NODE, "node_gen": 1, "root_keys": {"root-1": public(ROOT_KEY)}}
    return Identity(**{**defaults, **values})


def job(manifest: Manifest | None = None, *, seq: int = 1, **values) -> Job:
    defaults = {
        "cluster_id": CLUSTER,
        "node_id": NODE,
        "node_gen": 1,
        "job_id": str(uuid.uuid4()),
        "nonce": b"n" * 16,
        "seq": seq,
        "action": ACTION_CONVERGE,
        "args": b"" if manifest is None else encode_manifest(manifest),
        "resource_key": "node" if manifest is None else manifest.subject,
        "generation": 0 if manifest is None else manifest.generation,
        "actor": "user/1",
        "request_id": "request-1",
        "issued_at": NOW,
        "not_before": NOW,
        "expires_at": NOW + 3600,
        "max_runtime_seconds": 60,
    }
    return Job(**{**defaults, **values})


def signed(a_job: Job, *, kid: str = "job-1", key: Ed25519PrivateKey = JOB_KEY) -> Envelope:
    return sign_envelope(JOB_TYPE, encode_job(a_job), {kid: key})


# --- manifests ------------------------------------------------------------------------------------------------------


def account(name: str = "alice", uid: int = UID) -> AccountSpec:
    return AccountSpec(name=name, uid=uid)


def pool(name: str = "alice", uid: int = UID, version: str = "8.2") -> PhpPoolSpec:
    return PhpPoolSpec(account=name, uid=uid, version=version)


def site(domain: str = "example.com", name: str = "alice", uid: int = UID, php: str | None = None, text: str = ""):
    path = None if php is None else php_socket_path(php, uid)
    return SiteSpec(account=name, uid=uid, domain=domain, php_socket_path=path, extra_directives=text)


def manifest(generation: int = 1, *specs, subject: str = "account/alice", **values) -> Manifest:
    chosen = specs if specs or "presence" in values else (account(), site())
    return Manifest(subject=subject, generation=generation, specs=chosen, **values)


# --- the host -------------------------------------------------------------------------------------------------------


class DiskHost:
    """A host that lives in a folder and so survives the process. Refuses what this bench's module never does."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)
        self.failing_undo: str | None = None
        self.captured: list[str] = []
        self.applied: list[str] = []

    def real(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def snapshot(self) -> dict[str, str]:
        """Path to content, folders as an empty string with a slash."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = "/" + str(path.relative_to(self.root))
            found[name + "/" * path.is_dir()] = "" if path.is_dir() else path.read_text()
        return found

    async def path(self, path: str) -> PathFact | None:
        real = self.real(path)
        if not real.exists():
            return None
        if real.is_dir():
            return PathFact(kind="directory", owner="root", group="root", mode=0o755)
        digest = actions.content_hash(real.read_text())
        return PathFact(kind="file", owner="root", group="root", mode=0o644, content_hash=digest)

    async def user(self, name: str) -> UserFact | None:
        return None

    async def capture(self, action) -> bytes:
        self.captured.append(action.target)
        real = self.real(action.target)
        content = real.read_text() if real.is_file() else None
        return msgspec.msgpack.encode({"was_there": real.exists(), "content": content})

    async def apply(self, action) -> None:
        self.applied.append(action.target)
        real = self.real(action.target)
        match action:
            case actions.EnsureDirectory():
                real.mkdir(parents=True, exist_ok=True)
            case actions.WriteFile():
                self._write(real, action.content)
            case actions.RemoveFile():
                real.unlink(missing_ok=True)
            case actions.RemoveTree():
                shutil.rmtree(real, ignore_errors=True)
            case _:
                raise BugError(f"this host does not know {action!r}")

    def _write(self, real: Path, content: str) -> None:
        if "broken" in content:
            raise ConfigTestError('unknown directive "broken" in site.conf:3')
        if '"btrfs"' in content:
            raise CommandError(("/usr/sbin/useradd",), 9, "useradd: it exploded")
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_text(content)

    async def undo(self, action, record: bytes) -> None:
        if self.failing_undo is not None and self.failing_undo in action.target:
            raise CommandError(("/bin/false",), 1, "the disk is gone")
        before = msgspec.msgpack.decode(record)
        real = self.real(action.target)
        if not before["was_there"]:
            shutil.rmtree(real) if real.is_dir() else real.unlink(missing_ok=True)
        elif before["content"] is not None:
            real.parent.mkdir(parents=True, exist_ok=True)
            real.write_text(before["content"])

    async def diff(self, action, *, is_whole: bool = False) -> str:
        return f"+{action.content}\n" if isinstance(action, actions.WriteFile) else ""


# --- the module -----------------------------------------------------------------------------------------------------


class FileConverger:
    """One folder and one file for each resource; removal takes the folder for good."""

    def __init__(self, spec_type: type) -> None:
        self.spec_type = spec_type

    def folder(self, spec) -> str:
        return f"/srv/{spec.key}"

    def file(self, spec) -> str:
        return f"/etc/{spec.key}.conf"

    def content(self, spec, presence: Presence) -> str:
        return f"{presence.value} {msgspec.json.encode(spec).decode()}"

    async def observe(self, spec, probe):
        return await probe.path(self.folder(spec)), await probe.path(self.file(spec))

    def plan(self, spec, presence, facts) -> Plan:
        folder, file = facts
        if presence is Presence.ABSENT:
            return self._plan_removal(spec, folder, file)
        planned = []
        if folder is None:
            planned.append(actions.EnsureDirectory(path=self.folder(spec), reason="the folder is missing"))
        content = self.content(spec, presence)
        if file is None or file.content_hash != actions.content_hash(content):
            planned.append(actions.WriteFile(path=self.file(spec), content=content, reason="the file differs"))
        return Plan(actions=tuple(planned), noop_reason="it is as it should be")

    def _plan_removal(self, spec, folder, file) -> Plan:
        planned = []
        if file is not None:
            planned.append(actions.RemoveFile(path=self.file(spec), reason="it is not wanted"))
        if folder is not None:
            planned.append(actions.RemoveTree(path=self.folder(spec), reason="it is not wanted"))
        return Plan(actions=tuple(planned), noop_reason="it is not there")

    async def verify(self, spec, presence, probe) -> Verification:
        file = await probe.path(self.file(spec))
        is_good = (file is None) == (presence is Presence.ABSENT) and "unverifiable" not in str(spec)
        proof = Proof(resource=spec.key, limit="files", wanted=1, enforced=1, source="bench", read_at=NOW)
        return Verification(is_good=is_good, note="looked at the file", proofs=(proof,))


MODULE = Module(
    name="bench",
    version="1",
    host=FileConverger(ModuleSpec),
    convergers=(FileConverger(AccountSpec), FileConverger(PhpPoolSpec), FileConverger(SiteSpec)),
    config_trees=(
        ConfigTree(name="nginx", live_dir="/etc/site", validator=("nginx", "-t"), reload_unit="nginx.service"),
    ),
)


# --- all together ---------------------------------------------------------------------------------------------------


class Bench:
    """An executor over a folder, without a socket; `reopen` is a restart."""

    def __init__(self, base: Path, *, host=None, registry: Registry | None = None) -> None:
        self.base = base
        self.state_dir = base / "state"
        self.state_dir.mkdir(parents=True, exist_ok=True)
        self.host = host or DiskHost(base / "host")
        self.registry = registry or Registry([MODULE])
        self.clock = NOW
        self.frames: list[FromExecutor] = []
        self.open()

    def open(self) -> None:
        self.journal = Journal(self.state_dir)
        self.trust = TrustStore(self.state_dir, identity().public_root_keys())
        if self.trust.bundle is None:
            self.trust.take(signed_bundle(bundle()), now=self.clock)
        self.rewire()

    def rewire(self) -> None:
        """An executor over the journal as it is now."""
        self.node = NodeContext(host=self.host, registry=self.registry, journal=self.journal, now=lambda: self.clock)
        self.executor = Executor(self.node, identity=identity(), trust=self.trust)
        self.executor.subscribe(self.frames.append)

    def die(self) -> None:
        """Let go of the journal as a killed process would: what was not on disk is lost."""
        connection = self.journal.database._connection
        connection.rollback()
        connection.close()

    def submit(self, a_job: Job, **options) -> JobAccepted:
        answers = self.executor.answer(SubmitJob(envelope=signed(a_job, **options)))
        self.frames.extend(answers[1:])
        assert isinstance(answers[0], JobAccepted)
        return answers[0]

    async def settle(self, timeout_seconds: float = 20.0) -> None:
        """Until nothing runs."""
        await self.wait_until(lambda: self.executor.is_idle, timeout_seconds)

    async def wait_until(self, condition, timeout_seconds: float = 20.0) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            await asyncio.sleep(0)

    async def run(self, a_job: Job):
        """Submit, wait, and return the result."""
        accepted = self.submit(a_job)
        assert accepted.state is JobState.RECEIVED, accepted
        await self.settle()
        return self.result_of(a_job)

    def result_of(self, a_job: Job):
        row = self.journal.find_job(a_job.job_id)
        assert row is not None
        assert row.result is not None, row.state
        return row.result

    def finished(self, a_job: Job) -> list[JobFinished]:
        return [f for f in self.frames if isinstance(f, JobFinished) and f.result.job_id == a_job.job_id]

    def outcomes(self, result) -> dict[str, str]:
        return {report.key: report.outcome.value for report in result.resources}

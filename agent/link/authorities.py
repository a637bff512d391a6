"""Which authorities the link believes when it connects: those of the bundle that the executor believes.

The file is the link's own copy. The executor verified the bundle with the root key that only root could have written,
so the link asks it and verifies nothing itself. Until the first word of the executor it is the authority that the
enrolment pinned. No `cryptography` here: this is loaded in a process that lives for ever.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from pathlib import Path
from typing import Final

import msgspec

from agent.link.port import ExecutorPort
from agent.link.settings import AgentSettings, NodePaths
from agent.link.setup_errors import ExitCode, SetupError
from shared.protocol.envelope import Envelope
from shared.protocol.local import SubmitTrust
from shared.protocol.renewal import TRUST_BUNDLE_PATH

_MODE: Final = 0o600
_log = logging.getLogger(__name__)


def find_authorities(settings: AgentSettings, paths: NodePaths) -> Path:
    """The PEM file to verify the controller with."""
    return paths.authorities_pem if paths.authorities_pem.exists() else Path(settings.ca_file)


def note_authorities(paths: NodePaths, certificates: tuple[bytes, ...]) -> bool:
    """Keep what the executor believes; True when that is news. None at all says nothing: an executor of long ago.

    Raises:
        OSError: The disk.
    """
    if not certificates:
        return False
    pem = "".join(ssl.DER_cert_to_PEM_cert(der) for der in certificates).encode()
    path = paths.authorities_pem
    if path.exists() and path.read_bytes() == pem:
        return False
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, _MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    return True


async def refresh_trust(settings: AgentSettings, paths: NodePaths, executor: ExecutorPort) -> bool:
    """Ask the controller's public port for the newest bundle, and the executor to believe it; True when it did.

    For a node that slept through a change of the authority: it believes nobody whom it can reach. So it verifies
    nothing on the way; what comes is signed by the root key, and the executor takes nothing else.

    Raises:
        FleetError: Nobody answers, or the executor does not.
        OSError: The disk.
    """
    from agent.link.enrolment_http import ControllerClient  # noqa: PLC0415 - 2 MB that most links never need

    raw = await asyncio.to_thread(ControllerClient(settings.controller_url).fetch_unverified, TRUST_BUNDLE_PATH)
    try:
        envelope = msgspec.msgpack.decode(raw, type=Envelope)
    except msgspec.MsgspecError as error:
        raise SetupError(ExitCode.BAD_ANSWER, "what came is no trust bundle") from error
    before = await executor.request_status()
    await executor.send(SubmitTrust(envelope=envelope))
    # Answers come in order, so this one knows what became of the bundle.
    after = await executor.request_status()
    note_authorities(paths, after.ca_certificates)
    _log.info("a trust bundle was fetched; believed was %d, now %d", before.bundle_version, after.bundle_version)
    return after.bundle_version > before.bundle_version

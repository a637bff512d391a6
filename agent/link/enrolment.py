"""How this machine becomes a node: token, pinned authority, own keys, and what comes back written where it belongs.

Runs as root inside the installer: it writes for two users (the agent's keys, the executor's pinned root key), and the
executor must not believe anything that the agent's user could have written.
"""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agent.link.certificate import parse_not_after
from agent.link.enrolment_http import (
    Answer,
    ControllerClient,
    explain_refusal,
    is_worth_waiting,
    parse_endpoint,
    parse_json,
)
from agent.link.enrolment_keys import (
    NodeKeys,
    Owner,
    ensure_node_keys,
    install_certificate,
    select_pinned_ca,
    write_private_file,
)
from agent.link.settings import AgentSettings, NodePaths, read_agent_settings, render_agent_toml, render_identity
from agent.link.setup_errors import ExitCode, SetupError
from shared.errors import InvalidInputError, NotFoundError
from shared.protocol.capability import CAPABILITY_VERSION
from shared.protocol.enrolment import (
    EnrolmentReply,
    EnrolmentRequest,
    EnrolmentState,
    EnrolmentToken,
    parse_enrolment_token,
)
from shared.version import __version__

ENROL_PATH: Final = "/api/v1/enrol"
APPROVAL_SECONDS: Final = 3600.0
BUSY_SECONDS: Final = 300.0
"""How long an overloaded or restarting controller is waited for."""
_MIN_POLL_SECONDS: Final = 0.2
_MAX_POLL_SECONDS: Final = 60.0


class EnrolmentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an enrolment is told."""

    controller_url: str
    token: str
    agent_owner: Owner | None = None
    """Who owns the agent's files; None: whoever runs (simulated agents, tests)."""
    is_forced: bool = False
    """Become a node anew although this machine is one already."""
    approval_seconds: float = APPROVAL_SECONDS
    hostname: str = ""
    machine_id_hash: str = ""
    """Empty: read from the machine (the simulator makes its own)."""


class EnrolmentOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of it."""

    node_id: str
    gateway_url: str
    node_name: str = ""
    is_new: bool = True
    """False: the machine was a node of this controller already, and nothing was done."""


class Enroller:
    """One enrolment. `say` gets a line for the person who watches; `sleep` and `clock` are for tests."""

    def __init__(
        self,
        paths: NodePaths,
        options: EnrolmentOptions,
        *,
        say: Callable[[str], None] = print,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._paths = paths
        self._options = options
        self._say = say
        self._sleep = sleep
        self._clock = clock

    def enrol(self) -> EnrolmentOutcome:
        """Make the machine a node, or see that it is one.

        Changes: /etc/wcp360, /var/lib/wcp360-agent, /var/lib/wcp360-executor (their directories must exist).

        Raises:
            SetupError: With the exit code that belongs to the reason.
        """
        token = _parse_token(self._options.token)
        client = ControllerClient(self._options.controller_url, clock=self._clock)
        if not self._options.is_forced:
            present = self._find_present(token)
            if present is not None:
                return present
        ca_pem = select_pinned_ca(client.fetch_ca_unverified(), token.ca_pins)
        keys = ensure_node_keys(
            self._paths, token_id=token.token_id, hostname=self._hostname, owner=self._options.agent_owner
        )
        reply = self._ask_until_decided(client, self._make_request(token, keys), ca_pem)
        self._store(reply, ca_pem)
        return EnrolmentOutcome(node_id=reply.node_id, gateway_url=reply.gateway_url, node_name=reply.node_name)

    @property
    def _hostname(self) -> str:
        return self._options.hostname or socket.gethostname()

    def _find_present(self, token: EnrolmentToken) -> EnrolmentOutcome | None:
        """What this machine is already; None when it is to be enrolled.

        Raises:
            SetupError: It belongs to another controller.
        """
        try:
            settings = read_agent_settings(self._paths)
            not_after = parse_not_after(self._paths.node_pem.read_text(encoding="ascii"))
            ca_pem = self._paths.ca_pem.read_bytes()
        except (NotFoundError, InvalidInputError, OSError):
            return None  # never enrolled, or half: the same keys and request go on where it stopped
        try:
            select_pinned_ca(ca_pem, token.ca_pins)
        except SetupError as error:
            raise SetupError(
                ExitCode.OTHER_CLUSTER,
                f"this machine is a node of another controller ({settings.controller_url})",
                hint="Uninstall it first: /opt/wcp360/current/bin/wcp-agent uninstall",
            ) from error
        if not_after.timestamp() <= self._clock() or not self._paths.identity_json.exists():
            return None
        return EnrolmentOutcome(node_id=settings.node_id, gateway_url=settings.gateway_url, is_new=False)

    def _make_request(self, token: EnrolmentToken, keys: NodeKeys) -> EnrolmentRequest:
        return EnrolmentRequest(
            token=str(token),
            csr_pem=keys.csr_pem,
            sealing_public_key=keys.sealing_public_key,
            machine_id_hash=self._options.machine_id_hash or _hash_machine_id(self._paths.machine_id),
            hostname=self._hostname,
            capability=CAPABILITY_VERSION,
            agent_version=__version__,
            facts=read_facts(self._paths.root),
        )

    def _ask_until_decided(self, client: ControllerClient, request: EnrolmentRequest, ca_pem: str) -> EnrolmentReply:
        body = msgspec.json.encode(request)
        waited_seconds = busy_seconds = 0.0
        has_said = False
        while True:
            answer = client.post_json(ENROL_PATH, body, ca_pem=ca_pem)
            if is_worth_waiting(answer) and busy_seconds < BUSY_SECONDS:
                busy_seconds += self._pause(_parse_retry_after(answer))
                continue
            reply = _require_reply(answer)
            if reply.state is EnrolmentState.APPROVED:
                return reply
            if not has_said:
                self._say("Waiting for approval. Compare these words with the ones that the controller shows:")
                self._say(f"    {reply.fingerprint_words}")
                has_said = True
            if waited_seconds >= self._options.approval_seconds:
                raise SetupError(
                    ExitCode.APPROVAL_TIMEOUT,
                    "nobody has approved this machine yet",
                    hint="Paste the same command again: it goes on with the same request.",
                )
            waited_seconds += self._pause(reply.retry_after_seconds)

    def _pause(self, seconds: float) -> float:
        bounded = min(max(seconds, _MIN_POLL_SECONDS), _MAX_POLL_SECONDS)
        self._sleep(bounded)
        return bounded

    def _store(self, reply: EnrolmentReply, ca_pem: str) -> None:
        """Write what came back; agent.toml comes last, since its presence says that the machine is a node."""
        paths, owner = self._paths, self._options.agent_owner
        parse_endpoint(reply.gateway_url, scheme="wss")
        identity = render_identity(
            cluster_id=reply.cluster_id,
            node_id=reply.node_id,
            node_gen=reply.node_gen,
            root_keys={reply.root_key_id: reply.root_public_key},
        )
        settings = AgentSettings(
            controller_url=self._options.controller_url,
            gateway_url=reply.gateway_url,
            ca_file=str(paths.ca_pem),
            node_id=reply.node_id,
        )
        readable = None if owner is None else Owner(0, owner.gid)
        install_certificate(paths, reply.certificate_pem, owner=owner)
        write_private_file(paths.trust_bundle, reply.trust_bundle)
        write_private_file(paths.identity_json, identity)
        # What the executor said of an earlier enrolment; from now on it says it of this one.
        paths.authorities_pem.unlink(missing_ok=True)
        # The authority that the pin proved, not whatever else the answer may hold.
        write_private_file(paths.ca_pem, ca_pem.encode(), mode=0o644)
        write_private_file(paths.agent_toml, render_agent_toml(settings).encode(), mode=0o640, owner=readable)


def _parse_token(raw: str) -> EnrolmentToken:
    try:
        return parse_enrolment_token(raw)
    except InvalidInputError as error:
        raise SetupError(ExitCode.TOKEN_MALFORMED, error.message, hint=error.hint) from error


def _require_reply(answer: Answer) -> EnrolmentReply:
    if not 200 <= answer.status < 300:
        raise explain_refusal(answer)
    reply: EnrolmentReply = parse_json(answer, EnrolmentReply)
    if reply.state is EnrolmentState.REJECTED:
        raise SetupError(ExitCode.REJECTED, "an administrator rejected this machine")
    return reply


def _parse_retry_after(answer: Answer) -> float:
    return float(answer.retry_after) if answer.retry_after.isdigit() else 5.0


def _hash_machine_id(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes().strip()).hexdigest()
    except OSError as error:
        raise SetupError(
            ExitCode.UNSUPPORTED_SYSTEM, "the machine has no /etc/machine-id", hint="systemd-machine-id-setup"
        ) from error


def read_facts(root: Path) -> dict[str, str]:
    """What an administrator sees of the machine before approving it."""
    facts = {
        "architecture": platform.machine(),
        "cpus": str(os.cpu_count() or 1),
        "memory_bytes": str(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        "addresses": ",".join(_list_addresses()),
    }
    try:
        release = platform.freedesktop_os_release()
        facts["os"], facts["os_version"] = release.get("ID", ""), release.get("VERSION_ID", "")
    except OSError:
        pass  # shown as unknown; the installer has refused such a system already
    disk = os.statvfs(root)
    facts["disk_bytes"] = str(disk.f_frsize * disk.f_blocks)
    return facts


def _list_addresses() -> list[str]:
    import psutil  # noqa: PLC0415 - only here, and only at enrolment

    addresses = (
        address.address
        for interface in psutil.net_if_addrs().values()
        for address in interface
        if address.family in (socket.AF_INET, socket.AF_INET6)
    )
    return sorted({a for a in addresses if not a.startswith(("127.", "::1", "fe80:"))})[:16]

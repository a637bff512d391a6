"""Where things lie on a node, and the agent's own settings.

The paths hang below `root` so that a test can have a whole node in a temporary directory.
"""

from __future__ import annotations

import base64
import tomllib
from pathlib import Path
from typing import Final

import msgspec

from shared.errors import InvalidInputError, NotFoundError

AGENT_USER: Final = "wcp-agent"


class NodePaths(msgspec.Struct, frozen=True):
    """The fixed places of an agent (docs/architecture.md)."""

    root: Path = Path("/")

    @property
    def config_dir(self) -> Path:
        return self.root / "etc/wcp360"

    @property
    def agent_toml(self) -> Path:
        return self.config_dir / "agent.toml"

    @property
    def ca_pem(self) -> Path:
        return self.config_dir / "ca.pem"

    @property
    def agent_state_dir(self) -> Path:
        return self.root / "var/lib/wcp360-agent"

    @property
    def tls_dir(self) -> Path:
        return self.agent_state_dir / "tls"

    @property
    def node_pem(self) -> Path:
        """The node's private key and certificate: one file, so that no crash can leave two that do not fit."""
        return self.tls_dir / "node.pem"

    @property
    def authorities_pem(self) -> Path:
        """The authorities of the trust bundle, as the executor told them."""
        return self.tls_dir / "authorities.pem"

    @property
    def next_pem(self) -> Path:
        """Key and request of a renewal that has no answer yet; asked again with after a lost one."""
        return self.tls_dir / "next.pem"

    @property
    def pending_key(self) -> Path:
        """The key of an enrolment that is not decided; it goes into node.pem together with its certificate."""
        return self.tls_dir / "pending.key"

    @property
    def pending_csr(self) -> Path:
        """Kept so that an enrolment which was interrupted asks again with the same request."""
        return self.tls_dir / "pending.csr"

    @property
    def sealing_key(self) -> Path:
        return self.agent_state_dir / "sealing.key"

    @property
    def spool_db(self) -> Path:
        return self.agent_state_dir / "spool.db"

    @property
    def processor_json(self) -> Path:
        """What was added up of accounts' processor time (agent/link/processor.py)."""
        return self.agent_state_dir / "processor.json"

    @property
    def audit_record(self) -> Path:
        """The ends of the controller's audit log that this node was shown (agent/link/witness.py)."""
        return self.agent_state_dir / "audit-record.jsonl"

    @property
    def executor_state_dir(self) -> Path:
        return self.root / "var/lib/wcp360-executor"

    @property
    def identity_json(self) -> Path:
        return self.executor_state_dir / "identity.json"

    @property
    def trust_bundle(self) -> Path:
        return self.executor_state_dir / "trust.bundle"

    @property
    def updater_state_dir(self) -> Path:
        return self.root / "var/lib/wcp360-updater"

    @property
    def update_dir(self) -> Path:
        """Where the link keeps a bundle that it fetched for the updater."""
        return self.agent_state_dir / "update"

    @property
    def runtime_dir(self) -> Path:
        return self.root / "run/wcp360-agent"

    @property
    def status_json(self) -> Path:
        return self.runtime_dir / "status.json"

    @property
    def program_dir(self) -> Path:
        return self.root / "opt/wcp360"

    @property
    def accounts_dir(self) -> Path:
        return self.root / "srv/accounts"

    @property
    def machine_id(self) -> Path:
        return self.root / "etc/machine-id"


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """agent.toml."""

    controller_url: str
    gateway_url: str
    ca_file: str
    node_id: str


class ExecutorIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """identity.json: what the executor believes without asking anybody."""

    cluster_id: str
    node_id: str
    node_gen: int
    root_keys: dict[str, str]
    """Key id to 32 bytes of Ed25519 in base64."""


def render_agent_toml(settings: AgentSettings) -> str:
    """The file's text. The values are URLs, a path and an id: none can hold a quote or a line break.

    Raises:
        InvalidInputError: One does.
    """
    lines = ["# Written by the enrolment of this node (python3 -m agent enrol)."]
    for name, value in msgspec.structs.asdict(settings).items():
        if not value.isprintable() or '"' in value or "\\" in value:
            raise InvalidInputError(f"the controller sent an impossible {name}")
        lines.append(f'{name} = "{value}"')
    return "\n".join(lines) + "\n"


def parse_agent_toml(text: str) -> AgentSettings:
    """Read the file's text.

    Raises:
        InvalidInputError: It is no TOML or lacks a value.
    """
    try:
        return msgspec.convert(tomllib.loads(text), AgentSettings)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInputError(f"agent.toml cannot be read: {error}") from error


def read_agent_settings(paths: NodePaths) -> AgentSettings:
    """The settings of this node.

    Raises:
        NotFoundError: The machine is not enrolled.
        InvalidInputError: The file is damaged.
    """
    try:
        text = paths.agent_toml.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFoundError(
            "this machine is not enrolled", hint="Paste the install command that the controller shows."
        ) from error
    return parse_agent_toml(text)


def render_identity(*, cluster_id: str, node_id: str, node_gen: int, root_keys: dict[str, bytes]) -> bytes:
    """identity.json as the executor reads it."""
    identity = ExecutorIdentity(
        cluster_id=cluster_id,
        node_id=node_id,
        node_gen=node_gen,
        root_keys={kid: base64.b64encode(key).decode() for kid, key in root_keys.items()},
    )
    return msgspec.json.format(msgspec.json.encode(identity), indent=2) + b"\n"

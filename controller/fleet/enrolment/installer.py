"""What a bare machine fetches before it is a node: the script, the agent's bundle, the authority's certificate."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from shared.errors import UnavailableError
from shared.version import __version__

SCRIPT_NAME: Final = "install.sh"
BUNDLE_NAME: Final = "agent.tar.gz"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstallFiles:
    """Files of the bundle folder, and the one line that an administrator pastes."""

    bundle_dir: Path
    controller_url: str
    server_pin: str
    """base64 of the SHA-256 of the server's public key."""

    def render_script(self) -> str:
        """The install script with this controller's values in place of its @NAMES@.

        Raises:
            UnavailableError: The bundle folder is not complete.
        """
        values = {
            "@CONTROLLER_URL@": self.controller_url,
            "@BUNDLE_SHA256@": hashlib.sha256(self.read_bundle()).hexdigest(),
            "@SERVER_PIN@": f"sha256//{self.server_pin}",
            "@VERSION@": __version__,
        }
        script = self._read(SCRIPT_NAME).decode()
        for name, value in values.items():
            script = script.replace(name, value)
        return script

    def read_bundle(self) -> bytes:
        """The agent's bundle.

        Raises:
            UnavailableError: It is not there.
        """
        return self._read(BUNDLE_NAME)

    def render_command(self, token: str) -> str:
        """The whole line. curl trusts the pinned key and nothing else; the token never is an argument of a process."""
        url = f"{self.controller_url.rstrip('/')}/{SCRIPT_NAME}"
        require_plain_url(url)
        return f"curl -fsS -k --pinnedpubkey 'sha256//{self.server_pin}' {url} | WCP360_TOKEN='{token}' sh"

    def _read(self, name: str) -> bytes:
        try:
            return (self.bundle_dir / name).read_bytes()
        except OSError as error:
            raise UnavailableError(
                f"the agent bundle is not complete: {name} is missing",
                hint="Build it (make bundle) or reinstall the controller's package.",
            ) from error


def require_plain_url(url: str) -> None:
    """Pass a URL that a shell takes as one word.

    Raises:
        UnavailableError: The controller's own URL is set to something else.
    """
    parts = urlsplit(url)
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_~:/[]")
    if parts.scheme != "https" or not parts.hostname or set(url) - allowed:
        raise UnavailableError("the setting controller_url is not a plain https URL")

"""Profiles: which controller, whose token. Kept in one file that only its owner may read."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode

DEFAULT_PROFILE = "default"


@dataclass(slots=True)
class Profile:
    """One controller as this user sees it."""

    controller: str = ""
    """Base URL, for example https://panel.example.com:8360."""
    ca_file: str = ""
    """PEM file of the controller's certificate authority; empty uses the system's."""
    token: str = ""


@dataclass(slots=True)
class ProfileStore:
    """All profiles of this user."""

    path: Path
    current: str = DEFAULT_PROFILE
    profiles: dict[str, Profile] = field(default_factory=dict)

    def get(self, name: str | None) -> Profile:
        """The named profile (None: the current one), with WCP360_CONTROLLER, WCP360_CA_FILE and WCP360_TOKEN on top."""
        stored = self.profiles.get(name or self.current, Profile())
        return Profile(
            controller=os.environ.get("WCP360_CONTROLLER", stored.controller).rstrip("/"),
            ca_file=os.environ.get("WCP360_CA_FILE", stored.ca_file),
            token=os.environ.get("WCP360_TOKEN", stored.token),
        )

    def save(self) -> None:
        """Write the file with mode 0600, atomically."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        content = {"current": self.current, "profiles": {name: asdict(item) for name, item in self.profiles.items()}}
        temporary = self.path.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=2)
        temporary.replace(self.path)


def config_path() -> Path:
    """$WCP360_CLI_CONFIG, else wcp360/cli.json below $XDG_CONFIG_HOME. Source: XDG Base Directory Specification 0.8."""
    if explicit := os.environ.get("WCP360_CLI_CONFIG"):
        return Path(explicit)
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "wcp360" / "cli.json"


def cache_dir() -> Path:
    """Where the OpenAPI document is kept between two commands. Source: XDG Base Directory Specification 0.8."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wcp360"


def load_profiles(path: Path | None = None) -> ProfileStore:
    """Read the profiles; a missing file is an empty store.

    Raises:
        CommandFailedError: The file is damaged.
    """
    path = path or config_path()
    if not path.exists():
        return ProfileStore(path=path)
    try:
        raw = json.loads(path.read_text())
        profiles = {name: Profile(**values) for name, values in raw["profiles"].items()}
        return ProfileStore(path=path, current=raw["current"], profiles=profiles)
    except (ValueError, TypeError, KeyError) as error:
        raise CommandFailedError(
            f"{path} is damaged", exit_code=ExitCode.USAGE, hint="Remove it and sign in again with `wcp360 login`."
        ) from error

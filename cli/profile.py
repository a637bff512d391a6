"""Profiles: which controller, whose token. Kept in one file that only its owner may read."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode

DEFAULT_PROFILE = "default"
DEFAULT_PORT = 8360
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


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

    def get(self, name: str | None, *, controller: str | None = None, ca_file: str | None = None) -> Profile:
        """The named profile (None: the current one), with WCP360_CONTROLLER, WCP360_CA_FILE and WCP360_TOKEN on top.

        Args:
            name: Empty profile when there is none of that name.
            controller: Overrides both.
            ca_file: Overrides both.

        A stored token is never sent to another controller than the one that gave it.
        """
        stored = self.profiles.get(name or self.current, Profile())
        chosen = parse_controller(controller or os.environ.get("WCP360_CONTROLLER") or stored.controller)
        kept = stored.token if chosen == stored.controller else ""
        return Profile(
            controller=chosen,
            ca_file=ca_file or os.environ.get("WCP360_CA_FILE") or stored.ca_file,
            token=(os.environ.get("WCP360_TOKEN") or kept).strip(),
        )

    def require_known(self, name: str | None) -> None:
        """Pass when the name is None or stored.

        Raises:
            CommandFailedError: There is no such profile.
        """
        if name is not None and name not in self.profiles:
            known = ", ".join(sorted(self.profiles)) or "none"
            raise CommandFailedError(
                f"there is no profile {name!r} (known: {known})",
                exit_code=ExitCode.NOT_FOUND,
                hint=f"Make it with `wcp360 --profile {name} login https://CONTROLLER:{DEFAULT_PORT}`.",
            )

    def save(self) -> None:
        """Write the file with mode 0600, atomically."""
        content = {"current": self.current, "profiles": {name: asdict(item) for name, item in self.profiles.items()}}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=self.path.name)  # mode 0600
            with os.fdopen(descriptor, "w") as file:
                json.dump(content, file, indent=2)
            Path(temporary).replace(self.path)
        except OSError as error:
            raise CommandFailedError(
                f"{self.path} cannot be written: {error.strerror}",
                exit_code=ExitCode.USAGE,
                hint="WCP360_CLI_CONFIG names another place.",
            ) from error


def parse_controller(text: str) -> str:
    """The base URL that people mean: a bare host gets https and the port 8360. An empty text stays empty.

    Raises:
        CommandFailedError: It is no such URL, or would send passwords in clear text over a network.
    """
    if not text:
        return ""
    url = text.strip().rstrip("/")
    if "://" not in url:
        has_port = url.rpartition(":")[2].isdigit() and (url.count(":") == 1 or "]:" in url)
        url = f"https://{url}" if has_port else f"https://{url}:{DEFAULT_PORT}"
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and not parts.username
    except ValueError:
        is_right = False
    if not is_right or not url.isprintable() or " " in url:
        raise CommandFailedError(
            f"{text!r} is not the address of a controller",
            exit_code=ExitCode.USAGE,
            hint=f"Write it like https://panel.example.com:{DEFAULT_PORT}.",
        )
    if parts.scheme == "http" and parts.hostname not in LOOPBACK_NAMES:
        raise CommandFailedError(
            "passwords and tokens go to a controller by https only", exit_code=ExitCode.USAGE, hint=f"Not {url!r}."
        )
    return url


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
        CommandFailedError: The file is damaged, or not readable.
    """
    path = path or config_path()
    try:
        raw = json.loads(path.read_text())
        profiles = {str(name): _read_profile(values) for name, values in raw["profiles"].items()}
        return ProfileStore(path=path, current=str(raw["current"]), profiles=profiles)
    except FileNotFoundError:
        return ProfileStore(path=path)
    except OSError as error:
        raise CommandFailedError(f"{path} cannot be read: {error.strerror}", exit_code=ExitCode.USAGE) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CommandFailedError(
            f"{path} is damaged", exit_code=ExitCode.USAGE, hint="Remove it and sign in again with `wcp360 login`."
        ) from error


def _read_profile(values: dict[str, Any]) -> Profile:
    profile = Profile(**values)
    if not all(isinstance(value, str) for value in asdict(profile).values()):
        raise TypeError("not a profile")
    return profile


def keep_rotated_token(old: str, answer: Any) -> bool:
    """Store the new secret of a session in place of the old one, where a profile has that; false: none has."""
    view = answer.get("session", answer) if isinstance(answer, dict) else {}
    new = view.get("token") if isinstance(view, dict) else None
    store = load_profiles()
    holders = [item for item in store.profiles.values() if old and item.token == old]
    if not isinstance(new, str) or not holders:
        return False
    for item in holders:
        item.token = new
    store.save()
    return True


def without_token(answer: dict[str, Any]) -> dict[str, Any]:
    """What a person may see of it: the secret is in the profile now, and need not be on a screen."""
    shown = {name: value for name, value in answer.items() if name != "token"}
    return {name: without_token(value) if name == "session" else value for name, value in shown.items()}

"""One HTTP client for all commands: adds the token, shows requests when asked, turns problems into exit statuses."""

from __future__ import annotations

import json
import ssl
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from cli.document import Document
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode, exit_code_of_status
from cli.profile import Profile, cache_dir
from shared.version import __version__

TIMEOUT_SECONDS = 60.0
DOCUMENT_PATH = "/schema/openapi.json"
DOCUMENT_MAX_AGE_SECONDS = 300


class ApiClient:
    """Speaks to one controller.

    Args:
        profile: Where and as whom.
        is_verbose: Print each request and answer to standard error (never the token).
        transport: Replaces the network in tests.
    """

    def __init__(
        self, profile: Profile, *, is_verbose: bool = False, transport: httpx.BaseTransport | None = None
    ) -> None:
        if not profile.controller:
            raise CommandFailedError(
                "no controller is named",
                exit_code=ExitCode.USAGE,
                hint="Sign in with `wcp360 login https://CONTROLLER:8360`, or set WCP360_CONTROLLER.",
            )
        self.profile = profile
        self._is_verbose = is_verbose
        headers = {"User-Agent": f"wcp360/{__version__}", "Accept": "application/json"}
        if profile.token:
            headers["Authorization"] = f"Bearer {profile.token}"
        self._http = httpx.Client(
            base_url=profile.controller,
            headers=headers,
            timeout=TIMEOUT_SECONDS,
            transport=transport,
            verify=_tls_context(profile.ca_file) if transport is None else False,
        )

    def request(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: dict[str, Any] | None = None
    ) -> Any:
        """Send one request and return the decoded JSON (None for an empty answer).

        Raises:
            CommandFailedError: The controller cannot be reached or answers 400 and up.
        """
        if self._is_verbose:
            _trace(f"> {method} {self.profile.controller}{path}", query, body)
        began = time.monotonic()
        try:
            response = self._http.request(method, path, params=query or None, json=body)
        except httpx.HTTPError as error:
            raise CommandFailedError(
                f"{self.profile.controller} cannot be reached: {error}",
                exit_code=ExitCode.UNAVAILABLE,
                hint=_connection_hint(str(error)),
            ) from error
        if self._is_verbose:
            _trace(f"< {response.status_code} in {(time.monotonic() - began) * 1000:.0f} ms", None, None)
        if response.status_code >= 400:
            raise _failure(response)
        return response.json() if response.content else None

    def load_document(self) -> Document:
        """The OpenAPI document, from the cache while it is fresh."""
        cached = cache_dir() / f"openapi-{_cache_key(self.profile.controller)}.json"
        if cached.exists() and time.time() - cached.stat().st_mtime < DOCUMENT_MAX_AGE_SECONDS:
            try:
                return Document(json.loads(cached.read_text()))
            except ValueError:
                cached.unlink()
        raw = self.request("GET", DOCUMENT_PATH)
        cached.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = cached.with_suffix(f".{time.monotonic_ns()}")
        temporary.write_text(json.dumps(raw))
        temporary.replace(cached)
        return Document(raw)

    def forget_document(self) -> None:
        """Ask the controller again next time."""
        (cache_dir() / f"openapi-{_cache_key(self.profile.controller)}.json").unlink(missing_ok=True)


def _tls_context(ca_file: str) -> ssl.SSLContext:
    if ca_file and not Path(ca_file).is_file():
        raise CommandFailedError(f"the CA file {ca_file} does not exist", exit_code=ExitCode.USAGE)
    return ssl.create_default_context(cafile=ca_file or None)


def _cache_key(url: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in url)


def _connection_hint(reason: str) -> str:
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return "Name the controller's CA with --ca-file (its data directory has pki/ca.pem)."
    return "Is the controller running, and is the address right? `wcp360 profile show` tells which one is used."


def _failure(response: httpx.Response) -> CommandFailedError:
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    detail = problem.get("detail") or problem.get("title") or f"the controller answered {response.status_code}"
    fields = [f"{item['field']}: {item['message']}" for item in problem.get("errors", []) if item.get("field")]
    hint = problem.get("hint")
    if response.status_code == 401 and not hint:
        hint = "Sign in with `wcp360 login`."
    return CommandFailedError(
        "; ".join(fields) if fields else detail,
        exit_code=exit_code_of_status(response.status_code),
        hint=hint,
        problem=problem,
    )


def _trace(line: str, query: dict[str, Any] | None, body: dict[str, Any] | None) -> None:
    sys.stderr.write(line + (f" {query}" if query else "") + "\n")
    if body is not None:
        shown = {key: "***" if "password" in key or "secret" in key else value for key, value in body.items()}
        sys.stderr.write(f"> {json.dumps(shown)}\n")

"""One HTTP client for all commands: adds the token, shows requests when asked, turns problems into exit statuses."""

from __future__ import annotations

import json
import re
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from cli.document import Document
from cli.document_cache import DocumentCache
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode, exit_code_of_status
from cli.profile import Profile
from cli.redact import redact
from cli.text import visible
from shared.version import __version__

TIMEOUT = httpx.Timeout(60.0, connect=10.0)
HURRIED_TIMEOUT = httpx.Timeout(1.0)
"""For shell completion: a key press does not wait for a controller that does not answer."""
STREAM_TIMEOUT = httpx.Timeout(60.0, connect=10.0, read=45.0)
"""A stream shows a sign of life every 15 seconds; a line that is silent for three of them is dead."""
LOGIN_PATH = "/api/v1/auth/login"
IS_IT_ONE = "Is this the address of a WCP360 controller?"
HOW_WRITTEN = "Write it like https://panel.example.com:8360."
SIGN_IN = "Sign in with `wcp360 login`."
DOCUMENT_PATH = "/schema/openapi.json"
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
"""How OpenSSL's errors name a certificate that is not believed."""


class ApiClient:
    """Speaks to one controller.

    Args:
        profile: Where and as whom.
        is_verbose: Print each request and answer to standard error (never the token).
        is_hurried: Rather fail than wait, and rather use an old document than ask for a new one.
        transport: Replaces the network in tests.
    """

    def __init__(
        self,
        profile: Profile,
        *,
        is_verbose: bool = False,
        is_hurried: bool = False,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        _require_usable(profile)
        self.profile = profile
        self._is_verbose = is_verbose
        self.is_hurried = is_hurried
        self._cache = DocumentCache(profile.controller)
        headers = {"User-Agent": f"wcp360/{__version__}", "Accept": "application/json"}
        if profile.token:
            headers["Authorization"] = f"Bearer {profile.token}"
        self._http = httpx.Client(
            base_url=profile.controller,
            headers=headers,
            timeout=HURRIED_TIMEOUT if is_hurried else TIMEOUT,
            transport=transport,
            verify=tls_context(profile.ca_file) if transport is None else False,
        )

    def request(
        self, method: str, path: str, *, query: dict[str, Any] | None = None, body: dict[str, Any] | None = None
    ) -> Any:
        """Send one request and return the decoded JSON (None for an empty answer).

        Raises:
            CommandFailedError: The controller cannot be reached, or answers 400 and up, or no JSON.
        """
        if self._is_verbose:
            _trace_request(f"{method} {self.profile.controller}{path}", query, body)
        began = time.monotonic()
        try:
            response = self._http.request(method, path, params=query or None, json=body)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandFailedError(
                f"{self.profile.controller} cannot be reached: {_reason_of(error)}",
                exit_code=ExitCode.UNAVAILABLE,
                hint=_connection_hint(str(error), self.profile),
            ) from error
        if self._is_verbose:
            _trace_answer(response, (time.monotonic() - began) * 1000)
        if response.status_code >= 400:
            raise _failure(response)
        return _decode(response)

    def stream(self, method: str, path: str, *, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The objects of an answer that comes line by line, for as long as it lasts.

        Raises:
            CommandFailedError: The controller cannot be reached, answers 400 and up, goes silent, or sends no JSON.
        """
        if self._is_verbose:
            _trace_request(f"{method} {self.profile.controller}{path}", query, None)
        try:
            with self._http.stream(method, path, params=query, timeout=STREAM_TIMEOUT) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _failure(response)
                yield from (_parse_line(line) for line in response.iter_lines() if line.strip())
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandFailedError(
                f"the connection to {self.profile.controller} broke: {_reason_of(error)}",
                exit_code=ExitCode.UNAVAILABLE,
                hint=_connection_hint(str(error), self.profile),
            ) from error

    def download(self, path: str, *, query: dict[str, Any]) -> Iterator[bytes]:
        """The bytes of an answer as they come.

        Raises:
            CommandFailedError: The controller cannot be reached, answers 400 and up, or breaks off.
        """
        if self._is_verbose:
            _trace_request(f"GET {self.profile.controller}{path}", query, None)
        try:
            with self._http.stream("GET", path, params=query, headers={"Accept": "*/*"}) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _failure(response)
                yield from response.iter_bytes()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CommandFailedError(
                f"the connection to {self.profile.controller} broke: {_reason_of(error)}",
                exit_code=ExitCode.UNAVAILABLE,
                hint=_connection_hint(str(error), self.profile),
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def load_document(self) -> Document:
        """The OpenAPI document, from the cache while it is fresh."""
        cached = self._cache.load(any_age=self.is_hurried)
        return cached if cached is not None else self.reload_document()

    def reload_document(self) -> Document:
        """The OpenAPI document as the controller has it now."""
        raw = self.request("GET", DOCUMENT_PATH)
        try:
            document = Document(raw)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CommandFailedError(
                f"{self.profile.controller} has no OpenAPI document at {DOCUMENT_PATH}",
                exit_code=ExitCode.BUG,
                hint=IS_IT_ONE,
            ) from error
        self._cache.save(raw)
        return document


def _require_usable(profile: Profile) -> None:
    if not profile.controller:
        raise CommandFailedError(
            "no controller is named",
            exit_code=ExitCode.USAGE,
            hint="Sign in with `wcp360 login https://CONTROLLER:8360`, or set WCP360_CONTROLLER.",
        )
    if profile.token and (not profile.token.isascii() or not profile.token.isprintable()):
        raise CommandFailedError("the token holds characters that no token has", exit_code=ExitCode.USAGE)


def tls_context(ca_file: str) -> ssl.SSLContext:
    """Trust the CA file, or the system's authorities when it is empty.

    Raises:
        CommandFailedError: It is not a PEM file that can be read.
    """
    try:
        return ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # ssl.SSLError is one
        missing = not Path(ca_file).is_file()
        raise CommandFailedError(
            f"the CA file {ca_file} {'does not exist' if missing else 'holds no certificate'}",
            exit_code=ExitCode.USAGE,
            hint="The controller's data directory has it as pki/ca.pem.",
        ) from error


def _reason_of(error: Exception) -> str:
    """For people: without the numbers and file names of the libraries below."""
    if isinstance(error, httpx.TimeoutException):
        return "it does not answer in time"
    text = str(error) or type(error).__name__
    if _UNTRUSTED in text:
        return (
            "its certificate is for another name"
            if _is_misnamed(text)
            else "its certificate is of no CA that is trusted here"
        )
    return re.sub(r"^\[Errno -?\d+\] ", "", text)


def _is_misnamed(reason: str) -> bool:
    return "ostname mismatch" in reason or "IP address mismatch" in reason


def _connection_hint(reason: str, profile: Profile) -> str:
    if _UNTRUSTED in reason and _is_misnamed(reason):
        return "Use the address that the controller was set up with."
    if _UNTRUSTED in reason and profile.ca_file:
        return (
            f"Is {profile.ca_file} the CA of this controller? --ca-file names another (its data directory: pki/ca.pem)."
        )
    if _UNTRUSTED in reason:
        return "Name the controller's CA with --ca-file (its data directory has pki/ca.pem)."
    if profile.controller.startswith("http:"):
        return f"A controller speaks https: is it {profile.controller.replace('http:', 'https:', 1)}?"
    return "Is the controller running, and is the address right? `wcp360 profile show` tells which one is used."


def _decode(response: httpx.Response) -> Any:
    if not response.content:
        return None
    try:
        return response.json()
    except ValueError as error:
        kind = response.headers.get("content-type", "no content type")
        raise CommandFailedError(
            f"the answer ({response.status_code}, {kind}) is not JSON",
            exit_code=ExitCode.BUG,
            hint="Is this the address of a WCP360 controller, and nothing in between?",
        ) from error


def _parse_line(line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise CommandFailedError("the answer is not line by line JSON", exit_code=ExitCode.BUG)
    return record


def _failure(response: httpx.Response) -> CommandFailedError:
    try:
        raw = response.json()
    except ValueError:
        raw = None
    problem: dict[str, Any] = raw if isinstance(raw, dict) else {"status": response.status_code}
    detail = str(problem.get("detail") or problem.get("title") or f"the controller answered {response.status_code}")
    fields = [
        _name_field(str(item["field"]), str(item.get("message", "")))
        for item in problem.get("errors") or ()
        if isinstance(item, dict) and item.get("field")
    ]
    return CommandFailedError(
        "; ".join(fields) if fields else detail,
        exit_code=exit_code_of_status(response.status_code),
        hint=_hint_of(response, problem),
        problem={**problem, "detail": detail},
    )


def _name_field(field: str, message: str) -> str:
    """`limit must be 1 or more` says already what it is about."""
    return message if message.startswith(f"{field} ") else f"{field}: {message}"


def _hint_of(response: httpx.Response, problem: dict[str, Any]) -> str | None:
    """The API's own, but where there is a command for what it says in terms of HTTP."""
    code, told, request_id = problem.get("code"), problem.get("hint"), problem.get("request_id")
    status = response.status_code
    ways = (
        (code == "wrong_credentials", "Who forgot theirs: `wcp360 auth request-password-reset`."),
        (code == "unauthenticated" and "Authorization" in str(told), SIGN_IN),
        (told, str(told)),
        (status == 401, SIGN_IN),
        (status == 404 and response.request.url.path.endswith(LOGIN_PATH), f"{IS_IT_ONE} {HOW_WRITTEN}"),
        (status >= 500 and request_id, f"The controller's log tells more about the request {request_id}."),
    )
    return next((hint for is_right, hint in ways if is_right), None)


def _trace_request(line: str, query: dict[str, Any] | None, body: dict[str, Any] | None) -> None:
    shown = f" {json.dumps(redact(query), default=str)}" if query else ""
    sys.stderr.write(visible(f"> {line}{shown}") + "\n")
    if body is not None:
        sys.stderr.write(visible(f"> {json.dumps(redact(body), ensure_ascii=False)}") + "\n")


def _trace_answer(response: httpx.Response, milliseconds: float) -> None:
    request_id = response.headers.get("x-request-id")
    suffix = f", request {request_id}" if request_id else ""
    size = len(response.content)
    sys.stderr.write(visible(f"< {response.status_code} in {milliseconds:.0f} ms, {size} bytes{suffix}") + "\n")

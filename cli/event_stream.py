"""The controller's event stream: one WebSocket, read for as long as it lasts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from cli.client import tls_context
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.profile import Profile

EVENTS_PATH = "/api/v1/events"
OPEN_TIMEOUT_SECONDS = 10.0
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
# Close codes of the controller's own: 44xx says what the HTTP status 4xx would.
CLOSE_UNAUTHENTICATED, CLOSE_FORBIDDEN, CLOSE_BAD_MESSAGE = 4401, 4403, 4400
_EXIT_CODES = {
    CLOSE_UNAUTHENTICATED: ExitCode.NOT_ALLOWED,
    CLOSE_FORBIDDEN: ExitCode.NOT_ALLOWED,
    CLOSE_BAD_MESSAGE: ExitCode.INVALID_INPUT,
}


def stream(profile: Profile, topics: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The notices of these topics, for as long as the controller sends them.

    Raises:
        CommandFailedError: It cannot be reached, or ends the connection.
    """
    if not profile.controller:
        raise CommandFailedError("no controller is named", exit_code=ExitCode.USAGE, hint="Sign in first.")
    try:
        with _open(profile) as connection:
            connection.send(json.dumps({"subscribe": list(topics)}))
            for raw in connection:
                message = json.loads(raw)
                if isinstance(message, dict) and "topic" in message:
                    yield message
    except ConnectionClosed as closed:
        raise _ended(closed) from closed
    except InvalidStatus as error:
        status = error.response.status_code
        code = ExitCode.NOT_ALLOWED if status in (401, 403) else ExitCode.UNAVAILABLE
        raise CommandFailedError(f"the controller answered {status}", exit_code=code) from error
    except (OSError, WebSocketException, ValueError) as error:
        raise CommandFailedError(
            f"{profile.controller} cannot be reached: {error}", exit_code=ExitCode.UNAVAILABLE
        ) from error
    raise CommandFailedError("the controller ended the connection", exit_code=ExitCode.UNAVAILABLE)


def _open(profile: Profile) -> ClientConnection:
    url = "ws" + profile.controller.removeprefix("http") + EVENTS_PATH
    return connect(
        url,
        ssl=tls_context(profile.ca_file) if url.startswith("wss:") else None,
        additional_headers={"Authorization": f"Bearer {profile.token}"} if profile.token else {},
        open_timeout=OPEN_TIMEOUT_SECONDS,
        max_size=MAX_MESSAGE_BYTES,
        proxy=None,
    )


def _ended(closed: ConnectionClosed) -> CommandFailedError:
    code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (0, "")
    return CommandFailedError(
        reason or "the connection was lost",
        exit_code=_EXIT_CODES.get(code, ExitCode.UNAVAILABLE),
        hint="Sign in with `wcp360 login`." if code == CLOSE_UNAUTHENTICATED else None,
    )

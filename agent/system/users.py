"""Unix users: facts from passwd and shadow, changes through Debian's own tools, which lock and back up those files."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from agent.contract.facts import UserFact
from agent.system.runner import run
from shared.errors import ConflictError, FactError

PASSWD: Final = Path("/etc/passwd")
GROUP: Final = Path("/etc/group")
SHADOW: Final = Path("/etc/shadow")
TOOL_TIMEOUT_SECONDS: Final = 60.0

NO_PASSWORD: Final = "*"  # noqa: S105 - the field that no password matches, crypt(5)
"""Unlike useradd's own `!`, usermod --lock and --unlock turn it into `!*` and back without a word."""

LOCKED_UNTIL_DAY: Final = "1"
"""Days after 1970-01-01: an expired account is refused by PAM's account step, which SSH keys, cron and su pass too.

Source: usermod(8), NOTES of --lock; shadow(5), account expiration date (0 should not be used).
"""


class PasswdEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of passwd(5)."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


class ShadowEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What we need of one line of shadow(5)."""

    password: str
    expires_day: int | None
    """Days after 1970-01-01; None: never."""


def parse_passwd(text: str) -> dict[str, PasswdEntry]:
    """Parse passwd(5); lines that are none (NIS, damage) are left out."""
    entries: dict[str, PasswdEntry] = {}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[2].isdigit() and fields[3].isdigit():
            name, _, uid, gid, _, home, shell = fields
            entries[name] = PasswdEntry(name=name, uid=int(uid), gid=int(gid), home=home, shell=shell)
    return entries


def parse_shadow(text: str) -> dict[str, ShadowEntry]:
    """Parse shadow(5); lines that are none are left out."""
    entries: dict[str, ShadowEntry] = {}
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) == 9:
            expires = int(fields[7]) if fields[7].isdigit() else None
            entries[fields[0]] = ShadowEntry(password=fields[1], expires_day=expires)
    return entries


def parse_group_ids(text: str) -> dict[str, int]:
    """Parse group(5): name to id."""
    rows = (line.split(":") for line in text.splitlines())
    return {fields[0]: int(fields[2]) for fields in rows if len(fields) == 4 and fields[2].isdigit()}


def parse_memberships(text: str, user: str) -> tuple[str, ...]:
    """Parse group(5): names of the groups that list the user, sorted."""
    rows = (line.split(":") for line in text.splitlines())
    return tuple(sorted(fields[0] for fields in rows if len(fields) == 4 and user in fields[3].split(",")))


def fact_of(entry: PasswdEntry, shadow: ShadowEntry | None, groups: tuple[str, ...] = ()) -> UserFact:
    """Locked is what PAM refuses on any day: an expiry date in the first days of 1970, as only a lock sets it."""
    is_locked = shadow is not None and shadow.expires_day is not None and shadow.expires_day <= int(LOCKED_UNTIL_DAY)
    return UserFact(
        name=entry.name,
        uid=entry.uid,
        gid=entry.gid,
        home=entry.home,
        shell=entry.shell,
        is_locked=is_locked,
        groups=groups,
    )


def groupadd_argv(name: str, gid: int) -> tuple[str, ...]:
    return ("groupadd", "--gid", str(gid), "--", name)


def system_group_argv(name: str) -> tuple[str, ...]:
    """A group of the system; one that is there stays as it is."""
    return ("groupadd", "--system", "--force", "--", name)


def useradd_argv(user: UserFact) -> tuple[str, ...]:
    """No skeleton, no mail spool, no lastlog entry (a sparse file of gigabytes at high ids), no subordinate ids."""
    return (
        "useradd",
        *("--uid", str(user.uid)),
        *("--gid", str(user.gid)),
        *("--home-dir", user.home),
        *("--shell", user.shell),
        *(("--groups", ",".join(user.groups)) if user.groups else ()),
        *("--password", NO_PASSWORD),
        *("--key", "SUB_UID_COUNT=0"),
        *("--key", "SUB_GID_COUNT=0"),
        "--no-create-home",
        "--no-log-init",
        "--no-user-group",
        "--",
        user.name,
    )


def usermod_argv(before: UserFact, wanted: UserFact) -> tuple[str, ...] | None:
    """What turns one into the other; None when they are the same. Ids are never changed."""
    options: list[str] = []
    if before.home != wanted.home:
        options += ["--home", wanted.home]
    if before.shell != wanted.shell:
        options += ["--shell", wanted.shell]
    if before.groups != wanted.groups:
        options += ["--groups", ",".join(wanted.groups)]
    if before.is_locked != wanted.is_locked:
        options += (
            ["--lock", "--expiredate", LOCKED_UNTIL_DAY] if wanted.is_locked else ["--unlock", "--expiredate", ""]
        )
    return ("usermod", *options, "--", wanted.name) if options else None


class Users:
    """The users of this node. One change at a time: the tools would fail on each other's locks."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def find(self, name: str) -> UserFact | None:
        """See Probe.user."""
        entry = parse_passwd(await _read(PASSWD)).get(name)
        if entry is None:
            return None
        return fact_of(entry, parse_shadow(await _read(SHADOW)).get(name), parse_memberships(await _read(GROUP), name))

    async def find_by_uid(self, uid: int) -> UserFact | None:
        """See Probe.user_of_uid."""
        entries = parse_passwd(await _read(PASSWD)).values()
        name = next((entry.name for entry in entries if entry.uid == uid), None)
        return None if name is None else await self.find(name)

    async def read_password_field(self, name: str) -> str:
        """Second field of shadow(5) without a lock's exclamation mark; NO_PASSWORD when there is no such user."""
        entry = parse_shadow(await _read(SHADOW)).get(name)
        return NO_PASSWORD if entry is None else entry.password.removeprefix("!") or NO_PASSWORD

    async def ensure(self, wanted: UserFact, *, password_field: str = NO_PASSWORD) -> None:
        """Make a user be so, with a group of the same name; `password_field` counts only for one that is made now.

        Raises:
            ConflictError: The name has another id, or the id another name.
            CommandError: A tool refused.
        """
        async with self._lock:
            before = await self._require_free(wanted)
            known = parse_group_ids(await _read(GROUP))
            for group in (name for name in wanted.groups if name not in known):
                await run(system_group_argv(group), timeout_seconds=TOOL_TIMEOUT_SECONDS)
            if before is None:
                if wanted.name not in parse_group_ids(await _read(GROUP)):
                    await run(groupadd_argv(wanted.name, wanted.gid), timeout_seconds=TOOL_TIMEOUT_SECONDS)
                await run(useradd_argv(wanted), timeout_seconds=TOOL_TIMEOUT_SECONDS)
                if password_field != NO_PASSWORD:
                    line = f"{wanted.name}:{password_field}\n".encode()
                    await run(("chpasswd", "--encrypted"), timeout_seconds=TOOL_TIMEOUT_SECONDS, stdin=line)
                before = msgspec.structs.replace(wanted, is_locked=False)
            argv = usermod_argv(before, wanted)
            if argv is not None:
                await run(argv, timeout_seconds=TOOL_TIMEOUT_SECONDS)

    async def _require_free(self, wanted: UserFact) -> UserFact | None:
        by_name, by_uid = await self.find(wanted.name), await self.find_by_uid(wanted.uid)
        if by_uid is not None and by_uid.name != wanted.name:
            raise ConflictError(f"user id {wanted.uid} belongs to {by_uid.name}", code="uid_taken")
        if by_name is not None and (by_name.uid, by_name.gid) != (wanted.uid, wanted.gid):
            raise ConflictError(
                f"the user {wanted.name} exists with the id {by_name.uid}", code="user_exists", hint="It is not ours."
            )
        gid = parse_group_ids(await _read(GROUP)).get(wanted.name)
        if gid is not None and gid != wanted.gid:
            raise ConflictError(f"the group {wanted.name} exists with the id {gid}", code="group_exists")
        return by_name

    async def remove(self, name: str) -> None:
        """Remove a user and its group; a missing one is fine. Files stay.

        Raises:
            CommandError: A tool refused, for example because the user still runs processes.
        """
        async with self._lock:
            if await self.find(name) is not None:
                await run(("userdel", "--", name), timeout_seconds=TOOL_TIMEOUT_SECONDS)
            # userdel takes the private group along only where login.defs says USERGROUPS_ENAB.
            if name in parse_group_ids(await _read(GROUP)):
                await run(("groupdel", "--", name), timeout_seconds=TOOL_TIMEOUT_SECONDS)


async def _read(path: Path) -> str:
    try:
        return await asyncio.to_thread(path.read_text, "utf-8", "replace")
    except OSError as error:
        raise FactError(f"{path} cannot be read: {error.strerror}") from error

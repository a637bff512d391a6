"""SSH keys: what is taken, who may have how many, what the node is told, and when it forgets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sqlalchemy import select, update

from controller.core.audit.models import AuditEntry
from controller.modules.ssh.expiry import expire_due_keys
from controller.modules.ssh.models import SshKeyRow
from shared.specs.account import AccountSpec
from shared.specs.manifest import Manifest
from shared.specs.ssh_access import SshAccessSpec
from tests.integration.controller.hosting import Hosting

SSH = {"ssh": True}


def make_line(comment: str = "") -> str:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return f"{line} {comment}".strip()


def line_of(key: Any) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def access_of(manifest: Manifest) -> SshAccessSpec | None:
    return next((spec for spec in manifest.specs if isinstance(spec, SshAccessSpec)), None)


def account_of(manifest: Manifest) -> AccountSpec:
    return next(spec for spec in manifest.specs if isinstance(spec, AccountSpec))


async def add_key(hosting: Hosting, account_id: str, **fields: Any) -> dict[str, Any]:
    body = {"account_id": account_id, "name": "laptop", "public_key": make_line(), **fields}
    created: dict[str, Any] = (await hosting.post("/ssh-keys", body, expect=202))["resource"]
    return created


@pytest.fixture
async def with_ssh(hosting: Hosting) -> str:
    return await hosting.add_account(flags=SSH)


async def test_key_when_added_is_what_the_node_is_told_and_the_account_has_a_shell(
    hosting: Hosting, with_ssh: str
) -> None:
    assert account_of(await hosting.last_manifest(with_ssh)).has_shell is not True
    line, end = make_line(), datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)

    key = await add_key(
        hosting, with_ssh, public_key=f"  {line}  ada@laptop\n", expires_at=end.isoformat(),
        allowed_networks=["203.0.113.0/24", "2001:db8::/32"],
    )  # fmt: skip

    assert (key["public_key"], key["comment"], key["state"]) == (line, "ada@laptop", "active")
    assert key["fingerprint"].startswith("SHA256:")
    manifest = await hosting.last_manifest(with_ssh)
    access = access_of(manifest)
    assert access is not None
    assert [f"{k.key_type} {k.blob}" for k in access.keys] == [line]
    assert access.keys[0].expires_at == int(end.timestamp())
    assert access.keys[0].networks == ("2001:db8::/32", "203.0.113.0/24")
    assert account_of(manifest).has_shell is True
    assert await hosting.get(f"/ssh-keys/{key['id']}") == key
    assert (await hosting.get("/ssh-keys", account_id=with_ssh))["items"] == [key]


@pytest.mark.parametrize(
    "key",
    [ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP521R1()), rsa.generate_private_key(65537, 2048)],
    ids=["ecdsa-256", "ecdsa-521", "rsa-2048"],
)  # fmt: skip
async def test_key_of_another_type_when_strong_is_taken(hosting: Hosting, with_ssh: str, key: Any) -> None:
    assert (await add_key(hosting, with_ssh, public_key=line_of(key)))["public_key"] == line_of(key)


def private_key() -> str:
    key = ed25519.Ed25519PrivateKey.generate()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


@pytest.mark.parametrize(
    ("pasted", "words"),
    [
        (private_key(), "private key"),
        ("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none", "private key"),
        (f"{make_line()}\n{make_line()}", "one line"),
        (f"{make_line()}\r{make_line()}", "one line"),
        (f'command="/bin/sh" {make_line()}', "options"),
        (f"no-pty {make_line()}", "options"),
        (line_of(rsa.generate_private_key(65537, 1024)), "1024"),
        ("ssh-dss AAAAB3NzaC1kc3MAAACBAP", "DSA"),
        (make_line().replace("ssh-ed25519 ", "ssh-ed25519-cert-v01@openssh.com ", 1), "certificate"),
        (make_line().replace("ssh-ed25519 ", "ssh-rsa ", 1), "damaged"),
        (make_line()[:-8], "damaged"),
        ("ssh-ed25519", "damaged"),
        ("hello", "no public key"),
        ("ssh-ed25519 AAAA\x00AAAA", "NUL"),
        (make_line("a\x1b[31mb"), "printable"),
    ],
    ids=[
        "openssh-private", "putty-private", "two-lines", "two-lines-by-cr", "option", "option-without-value", "rsa-1024",
        "dsa", "certificate", "another-type", "cut-off", "type-only", "word", "nul", "control-in-comment",
    ],
)  # fmt: skip
async def test_paste_when_it_is_no_fit_key_is_refused_without_repeating_it(
    hosting: Hosting, with_ssh: str, pasted: str, words: str
) -> None:
    body = {"account_id": with_ssh, "name": "laptop", "public_key": pasted}

    answer = await hosting.http.post("/api/v1/ssh-keys", json=body)

    assert answer.status_code == 400, answer.text
    assert words in answer.text
    assert [error["field"] for error in answer.json()["errors"]] == ["public_key"]
    assert not [word for word in pasted.split() if len(word) > 16 and word in answer.text]
    assert await hosting.count(SshKeyRow) == 0


async def _audit(hosting: Hosting) -> list[AuditEntry]:
    async with hosting.database.read() as session:
        return list(await session.scalars(select(AuditEntry)))


async def test_key_when_a_field_is_wrong_is_refused_with_its_name(hosting: Hosting, with_ssh: str) -> None:
    good = {"account_id": with_ssh, "name": "laptop", "public_key": make_line()}
    past = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    cases = [
        (good | {"name": "a\nb"}, "name"),
        (good | {"expires_at": past}, "expires_at"),
        (good | {"allowed_networks": ["here"]}, "allowed_networks"),
        (good | {"allowed_networks": ["10.0.0.1/8"]}, "allowed_networks"),
        (good | {"allowed_networks": ["fe80::1%eth0"]}, "allowed_networks"),
        (good | {"account_id": "019f0000-0000-7000-8000-000000000000"}, "account_id"),
    ]

    assert await hosting.wrong_fields("POST", "/ssh-keys", cases) == []
    assert await hosting.count(SshKeyRow) == 0


async def test_key_when_the_account_has_it_is_a_conflict_and_another_account_may_have_it(
    hosting: Hosting, with_ssh: str
) -> None:
    line = make_line()
    await add_key(hosting, with_ssh, public_key=line)
    other = await hosting.add_account("grace", flags=SSH)

    body = {"account_id": with_ssh, "name": "again", "public_key": f"{line} another comment"}
    refused = await hosting.post("/ssh-keys", body, expect=409)

    assert refused["code"] == "ssh_key_exists"
    await add_key(hosting, other, public_key=line)


async def test_key_when_package_has_no_ssh_is_refused_and_keys_wait_until_it_has(
    hosting: Hosting, with_ssh: str
) -> None:
    key = await add_key(hosting, with_ssh)
    without = await hosting.add_package("without", flags={"ssh": False})
    before = (await hosting.get(f"/accounts/{with_ssh}"))["package_id"]

    await hosting.patch(f"/accounts/{with_ssh}", {"package_id": without}, expect=202)

    off = await hosting.last_manifest(with_ssh)
    assert (access_of(off), account_of(off).has_shell is True) == (None, False)
    body = {"account_id": with_ssh, "name": "more", "public_key": make_line()}
    assert (await hosting.post("/ssh-keys", body, expect=403))["code"] == "feature_disabled"
    await hosting.patch(f"/accounts/{with_ssh}", {"package_id": before}, expect=202)
    again = access_of(await hosting.last_manifest(with_ssh))
    assert again is not None
    assert f"{again.keys[0].key_type} {again.keys[0].blob}" == key["public_key"]


async def test_flag_when_its_package_is_edited_reaches_the_node(hosting: Hosting, with_ssh: str) -> None:
    await add_key(hosting, with_ssh)
    package_id = (await hosting.get(f"/accounts/{with_ssh}"))["package_id"]

    await hosting.patch(f"/packages/{package_id}", {"flags": {"ssh": False}}, expect=202)

    assert access_of(await hosting.last_manifest(with_ssh)) is None


async def test_keys_when_the_package_limits_them_stop_there(hosting: Hosting) -> None:
    account_id = await hosting.add_account(flags=SSH, limits={"ssh_keys": 1})
    await add_key(hosting, account_id)

    body = {"account_id": account_id, "name": "two", "public_key": make_line()}
    refused = await hosting.post("/ssh-keys", body, expect=409)

    assert refused["code"] == "quota_exceeded"
    assert refused["quota"]["limit"] == "ssh_keys"


async def test_key_when_changed_keeps_its_line_and_when_deleted_leaves_the_manifest(
    hosting: Hosting, with_ssh: str
) -> None:
    key = await add_key(hosting, with_ssh)
    end = (datetime.now(UTC) + timedelta(days=1)).isoformat()

    changed = (await hosting.patch(f"/ssh-keys/{key['id']}", {"name": "desk", "expires_at": end}, expect=202))[
        "resource"
    ]
    assert (changed["name"], changed["public_key"]) == ("desk", key["public_key"])
    access = access_of(await hosting.last_manifest(with_ssh))
    assert access is not None
    assert access.keys[0].expires_at is not None
    await hosting.delete(f"/ssh-keys/{key['id']}", expect=202)

    assert access_of(await hosting.last_manifest(with_ssh)) is None
    await hosting.get(f"/ssh-keys/{key['id']}", expect=404)
    actions = [row.action for row in await _audit(hosting) if row.action.startswith("ssh_key.")]
    assert actions == ["ssh_key.create", "ssh_key.update", "ssh_key.delete"]


async def test_dry_run_of_a_key_shows_the_file_and_leaves_nothing(hosting: Hosting, with_ssh: str) -> None:
    body = {"account_id": with_ssh, "name": "laptop", "public_key": make_line()}

    plan = await hosting.post("/ssh-keys", body, expect=200, dry_run=True)

    assert [row["action"] for row in plan["changes"]] == ["ssh_key.create"]
    assert "ssh_access/ada" in [change["resource"] for change in plan["nodes"][0]["changes"]]
    assert await hosting.count(SshKeyRow) == 0


async def test_keys_when_their_time_is_over_leave_the_node_once_and_may_come_back(
    hosting: Hosting, with_ssh: str
) -> None:
    stays = await add_key(hosting, with_ssh)
    goes = await add_key(hosting, with_ssh, expires_at=(datetime.now(UTC) + timedelta(days=1)).isoformat())
    async with hosting.database.write() as session:
        past = datetime.now(UTC) - timedelta(seconds=5)
        await session.execute(update(SshKeyRow).where(SshKeyRow.id == goes["id"]).values(expires_at=past))

    assert await expire_due_keys(hosting.operations) == "1 keys have expired"
    assert await expire_due_keys(hosting.operations) is None

    access = access_of(await hosting.last_manifest(with_ssh))
    assert access is not None
    assert [f"{key.key_type} {key.blob}" for key in access.keys] == [stays["public_key"]]
    assert (await hosting.get(f"/ssh-keys/{goes['id']}"))["state"] == "expired"
    back = await hosting.patch(f"/ssh-keys/{goes['id']}", {"expires_at": None}, expect=202)
    assert back["resource"]["state"] == "active"
    access = access_of(await hosting.last_manifest(with_ssh))
    assert access is not None
    assert len(access.keys) == 2


async def test_keys_when_their_account_is_gone_are_gone(hosting: Hosting, with_ssh: str) -> None:
    await add_key(hosting, with_ssh)
    await hosting.finish(with_ssh)

    await hosting.delete(f"/accounts/{with_ssh}", expect=202, grace_days=0)
    await hosting.finish(with_ssh)

    assert await hosting.count(SshKeyRow) == 0


async def test_account_that_goes_to_another_client_takes_no_key_of_the_former_one_along(
    hosting: Hosting, with_ssh: str
) -> None:
    """Nobody keeps access: a key is a person's, and the person stays behind."""
    key = await add_key(hosting, with_ssh)
    client = await hosting.post("/clients", {"name": "Next", "email": "next@example.com"}, expect=201)
    former = (await hosting.get(f"/accounts/{with_ssh}"))["client_id"]
    body = {"client_id": client["id"]}

    preview = await hosting.post(f"/accounts/{with_ssh}/transfer-preview", body, expect=200)
    kept = access_of(await hosting.last_manifest(with_ssh))
    moved = await hosting.post(f"/accounts/{with_ssh}/transfer", body, expect=202)

    assert (preview["logins"], preview["is_possible"], kept is None) == (1, True, False)
    assert len(moved["jobs"]) == 1
    assert access_of(await hosting.last_manifest(with_ssh)) is None
    await hosting.get(f"/ssh-keys/{key['id']}", expect=404)
    entry = (await hosting.get("/audit", action="ssh_key.delete"))["items"][0]
    assert (entry["account_id"], entry["client_id"]) == (with_ssh, former)

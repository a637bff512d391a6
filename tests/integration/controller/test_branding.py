"""What a reseller's clients see instead of ours: by host and by who asks, readable, and no file but a picture."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

from controller.core.context import Role
from controller.core.resellers.logo import MAX_BYTES
from controller.core.resellers.models import ResellerBranding
from tests.integration.controller.hosting import Hosting
from tests.integration.controller.reselling import API, open_shop, sign_in


def make_png(width: int = 2, height: int = 1, *, filler: bytes = b"", behind: bytes = b"") -> bytes:
    """A picture in grey."""
    rows = zlib.compress((b"\0" + b"\x80" * width) * height)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", rows), (b"tEXt", filler), (b"IEND", b""),
    ]  # fmt: skip
    packed = (struct.pack(">I", len(data)) + kind + data + _check(kind + data) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed) + behind


def _check(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


def make_jpeg(width: int = 2, height: int = 1, *, behind: bytes = b"") -> bytes:
    """As much of one as anybody looks at."""
    frame = b"\xff\xc0\x00\x0b\x08" + struct.pack(">HH", height, width) + b"\x01\x01\x11\x00"
    return (
        b"\xff\xd8\xff\xe0\x00\x04ab" + frame + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\xff\x00\x01\xff\xd9" + behind
    )


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


async def test_branding_is_shown_to_who_comes_to_its_host_and_to_the_resellers_people(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    client = await sign_in(hosting, "ada", Role.CLIENT, client_id=shop.client_id)
    member = await sign_in(hosting, "bob", Role.MEMBER, client_id=shop.client_id)
    body = {
        "name": "Shop Hosting", "accent_colour": "#0a0a80", "support_email": "help@shop.example", "host": "panel.shop.example",
        "support_url": "https://shop.example/help", "logo": encode(make_png()),
    }  # fmt: skip
    answer = await hosting.http.put(f"{API}/resellers/{shop.id}/branding", json=body)
    assert answer.status_code == 200, answer.text
    path, nobody = f"{API}/branding", {"authorization": ""}
    asked: list[dict[str, str]] = [
        {"host": "Panel.Shop.Example:8443", **nobody}, shop.headers, client, member, {**other.headers, "host": "panel.shop.example"},
    ]  # fmt: skip

    seen = [(await hosting.http.get(path, headers=headers)).json() for headers in asked]
    ours = [(await hosting.http.get(path, headers=headers)).json()["name"] for headers in (nobody, other.headers)]
    logo = await hosting.http.get("/branding/logo", headers=client)

    assert seen == [answer.json()] * len(asked)
    assert ours == ["WCP360", "other"]
    assert (logo.content, logo.headers["content-type"]) == (make_png(), "image/png")
    assert (await hosting.http.get("/branding/logo", headers=nobody)).status_code == 404


async def test_logo_of_a_reseller_is_downloaded_by_whoever_may_see_it(hosting: Hosting) -> None:
    shop = await open_shop(hosting, "shop")
    other = await open_shop(hosting, "other")
    path = f"/resellers/{shop.id}/branding"
    none = await shop.ask("GET", f"{path}/logo", expect=404)
    await shop.ask("PUT", path, {"logo": encode(make_png())}, expect=200)

    mine = await hosting.http.get(f"/api/v1{path}/logo", headers=shop.headers)

    assert (mine.content, mine.headers["content-type"], none["code"]) == (make_png(), "image/png", "not_found")
    await other.ask("GET", f"{path}/logo", expect=404)


async def test_branding_when_set_again_keeps_the_logo_unless_it_is_taken_away(hosting: Hosting) -> None:
    shop = await open_shop(hosting)
    path = f"/resellers/{shop.id}/branding"

    first = await shop.ask("PUT", path, {"logo": encode(make_jpeg())}, expect=200)
    kept = await shop.ask("PUT", path, {"name": "Mine"}, expect=200)
    logo = await hosting.http.get("/branding/logo", headers=shop.headers)
    await shop.ask("PUT", path, {"name": "Other"}, expect=200, dry_run=True)
    shown = await shop.ask("GET", path, expect=200)
    gone = await shop.ask("PUT", path, {"logo": None}, expect=200)

    assert kept["logo_sha256"] == first["logo_sha256"] is not None
    assert (logo.headers["content-type"], shown["name"]) == ("image/jpeg", "Mine")
    assert (gone["name"], gone["logo_sha256"]) == ("shop", None)


async def test_branding_that_cannot_be_read_is_refused_with_its_ratio(hosting: Hosting) -> None:
    shop = await open_shop(hosting)
    path = f"/resellers/{shop.id}/branding"

    problem = await shop.ask("PUT", path, {"accent_colour": "#777777"}, expect=400)
    await shop.ask("PUT", path, {"accent_colour": "#767676"}, expect=200)
    dark = await shop.ask("PUT", path, {"background_colour": "#000000"}, expect=400)

    assert (
        problem["errors"] == [{"field": "accent_colour", "message": problem["detail"]}]
        and "contrast of 4.48 to 1; people need 4.5" in problem["detail"]
    )
    assert [error["field"] for error in dark["errors"]] == ["text_colour"]


async def test_branding_with_bad_input_names_the_field_and_changes_nothing(hosting: Hosting) -> None:
    shop = await open_shop(hosting)
    huge = make_png(filler=b"x" * MAX_BYTES)
    cases: list[tuple[Any, str]] = [
        ({"logo": "no base64"}, "logo"),
        ({"logo": encode(b"<svg onload='alert(1)'/>")}, "logo"),
        ({"logo": encode(make_png(behind=b"<script>"))}, "logo"),
        ({"logo": encode(make_jpeg(behind=b"PK\x03\x04"))}, "logo"),
        ({"logo": encode(make_png()[:-6])}, "logo"),
        ({"logo": encode(make_png(width=2001))}, "logo"),
        ({"logo": encode(make_jpeg(height=2001))}, "logo"),
        ({"logo": encode(make_png(width=0))}, "logo"),
        ({"logo": encode(huge)}, "logo"),
        ({"support_url": "javascript:alert(1)"}, "support_url"),
        ({"support_url": "https://user@shop.example/"}, "support_url"),
        ({"support_email": "me"}, "support_email"),
        ({"host": "not a host"}, "host"),
        ({"text_colour": "red"}, "text_colour"),
        ({"name": "a\nb"}, "name"),
    ]

    assert await hosting.wrong_fields("PUT", f"/resellers/{shop.id}/branding", cases) == []
    assert await hosting.count(ResellerBranding) == 0


async def test_host_of_the_panel_is_for_administrators_and_for_one_reseller(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    body = {"host": "panel.shop.example"}

    await shop.ask("PUT", f"/resellers/{shop.id}/branding", body, expect=403)
    for reseller_id, status in ((shop.id, 200), (other.id, 409)):
        answer = await hosting.http.put(f"{API}/resellers/{reseller_id}/branding", json=body)
        assert answer.status_code == status, answer.text
    await shop.ask("PUT", f"/resellers/{shop.id}/branding", {**body, "name": "Mine"}, expect=200)
    await shop.ask("PUT", f"/resellers/{shop.id}/branding", {"name": "Mine"}, expect=403)
    await hosting.delete(f"/clients/{shop.client_id}", expect=204)
    await hosting.delete(f"/resellers/{shop.id}", expect=204)
    freed = await hosting.http.put(f"{API}/resellers/{other.id}/branding", json=body)
    assert freed.status_code == 200, freed.text


async def test_branding_of_another_reseller_is_not_there(hosting: Hosting) -> None:
    shop, other = await open_shop(hosting), await open_shop(hosting, "other")
    client = await sign_in(hosting, "ada", Role.CLIENT, client_id=shop.client_id)
    path = f"/resellers/{other.id}/branding"

    await shop.ask("GET", path, expect=404)
    await shop.ask("PUT", path, {"name": "Mine"}, expect=404)
    own = f"{API}/resellers/{shop.id}/branding"
    assert (await hosting.http.get(own, headers=client)).status_code == 404
    assert (await hosting.http.put(own, json={"name": "Mine"}, headers=client)).status_code == 403

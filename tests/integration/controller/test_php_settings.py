"""PHP settings that sites choose for themselves, and process restrictions: what is told to nodes, and to whom refused."""

from __future__ import annotations

from typing import Any

import pytest

from shared.specs.account import MIB
from shared.specs.php_pool import PhpPoolSpec
from shared.specs.php_settings import PhpSettings
from shared.specs.ssh_access import SshAccessSpec
from tests.integration.controller.hosting import Hosting

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ada@laptop"


class Place:
    """An account whose package has the feature, with one PHP site."""

    def __init__(self, hosting: Hosting, account_id: str, site_id: str, package_id: str) -> None:
        self.hosting = hosting
        self.account_id = account_id
        self.site_id = site_id
        self.package_id = package_id

    async def choose(self, *, expect: int = 202, **settings: Any) -> Any:
        return await self.hosting.patch(f"/sites/{self.site_id}/php-settings", settings, expect=expect)

    async def show(self) -> Any:
        return await self.hosting.get(f"/sites/{self.site_id}/php-settings")

    async def change_package(self, **body: Any) -> Any:
        return await self.hosting.patch(f"/packages/{self.package_id}", body, expect=202)

    async def pool(self) -> PhpPoolSpec:
        manifest = await self.hosting.last_manifest(self.account_id)
        return next(spec for spec in manifest.specs if isinstance(spec, PhpPoolSpec))

    async def told(self) -> dict[str, PhpSettings]:
        return {site.domain: site.settings for site in (await self.pool()).chosen}


@pytest.fixture
async def place(hosting: Hosting) -> Place:
    account_id = await hosting.add_account("ada", flags={"custom_php": True, "ssh": True})
    site_id = await hosting.add_site(account_id, "example.com", php_version="8.2")
    account = await hosting.get(f"/accounts/{account_id}")
    return Place(hosting, account_id, site_id, account["package_id"])


async def test_settings_when_chosen_are_told_to_the_node_for_their_site_only(place: Place) -> None:
    await place.hosting.add_site(place.account_id, "other.example", php_version="8.2")

    answer = await place.choose(memory_limit_bytes=64 * MIB, display_errors=True, date_timezone="Europe/Berlin")
    cleared = await place.choose(display_errors=None, date_timezone=None)

    assert len(answer["jobs"]) == 1
    assert answer["resource"]["chosen"] == {
        "memory_limit_bytes": 64 * MIB,
        "display_errors": True,
        "date_timezone": "Europe/Berlin",
    }
    assert cleared["resource"]["chosen"] == {"memory_limit_bytes": 64 * MIB}
    assert await place.told() == {"example.com": PhpSettings(memory_limit_bytes=64 * MIB)}


async def test_settings_when_chosen_again_change_nothing_and_when_all_are_cleared_are_gone(place: Place) -> None:
    await place.choose(max_input_vars=5000)
    before = (await place.hosting.last_job(place.account_id)).generation

    again = await place.choose(max_input_vars=5000)
    after = (await place.hosting.last_job(place.account_id)).generation
    await place.choose(max_input_vars=None)

    assert (again["jobs"], before) == ([], after)
    assert await place.told() == {}


async def test_settings_when_the_package_loses_the_feature_wait_until_it_has_it_again(place: Place) -> None:
    await place.choose(max_input_vars=5000)

    await place.change_package(flags={"custom_php": False})
    told_without, shown = await place.told(), await place.show()
    refused = await place.choose(max_input_vars=6000, expect=403)
    await place.change_package(flags={"custom_php": True})

    assert told_without == {}
    assert (shown["is_allowed"], shown["chosen"], shown["effective"]) == (False, {"max_input_vars": 5000}, {})
    assert (refused["code"], refused["detail"]) == (
        "feature_disabled",
        "the package 'of ada' does not have this feature: PHP settings of their own",
    )
    assert await place.told() == {"example.com": PhpSettings(max_input_vars=5000)}


async def test_settings_above_the_package_are_refused_and_follow_a_package_that_gets_smaller(place: Place) -> None:
    too_much = await place.choose(memory_limit_bytes=256 * MIB, expect=409)
    await place.choose(memory_limit_bytes=128 * MIB, upload_max_filesize_bytes=64 * MIB, post_max_size_bytes=65 * MIB)

    await place.change_package(php_memory_bytes=96 * MIB, upload_max_bytes=8 * MIB)

    assert too_much["code"] == "quota_exceeded"
    small = PhpSettings(memory_limit_bytes=96 * MIB, upload_max_filesize_bytes=8 * MIB, post_max_size_bytes=9 * MIB)
    assert await place.told() == {"example.com": small}
    shown = await place.show()
    assert shown["chosen"]["memory_limit_bytes"] == 128 * MIB
    assert shown["effective"]["memory_limit_bytes"] == 96 * MIB
    # What waits for the larger package hinders no other change.
    await place.choose(max_input_vars=2000)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"memory_limit_bytes": 1}, "memory_limit_bytes"),
        ({"max_execution_time_seconds": 601}, "max_execution_time_seconds"),
        ({"max_execution_time_seconds": 0}, "max_execution_time_seconds"),
        ({"date_timezone": "Europe/Berlin\nauto_prepend_file=/etc/passwd"}, "date_timezone"),
        ({"date_timezone": "Europe/Atlantis"}, "date_timezone"),
        ({"session_cookie_samesite": "Lax; evil"}, "session_cookie_samesite"),
        ({"display_errors": "yes"}, "display_errors"),
        ({"auto_prepend_file": "/tmp/x.php"}, "auto_prepend_file"),
        ({"disable_functions": ""}, "disable_functions"),
    ],
)
async def test_settings_that_are_none_are_refused_by_their_name(place: Place, body: dict[str, Any], field: str) -> None:
    answer = await place.choose(expect=400, **body)

    assert answer["errors"][0]["field"].endswith(field)


async def test_settings_of_a_parked_site_count_for_what_its_node_serves(place: Place) -> None:
    await place.hosting.finish(place.account_id)
    await place.hosting.patch(f"/sites/{place.site_id}", {"extra_directives": "nonsense;"}, expect=202)
    await place.hosting.finish(place.account_id, parked={"site/example.com": "unknown directive"})

    await place.choose(max_input_vars=5000)

    assert await place.told() == {"example.com": PhpSettings(max_input_vars=5000)}
    assert (await place.hosting.get(f"/sites/{place.site_id}"))["state"] == "parked"


async def test_settings_when_an_account_is_cloned_go_with_its_sites(place: Place) -> None:
    await place.choose(max_input_vars=5000)
    account = await place.hosting.get(f"/accounts/{place.account_id}")
    body = {"name": "ada2", "client_id": account["client_id"], "domains": {"example.com": "example.org"}}

    answer = await place.hosting.post(f"/accounts/{place.account_id}/clone", body, expect=202)

    manifest = await place.hosting.last_manifest(answer["resource"]["id"])
    pool = next(spec for spec in manifest.specs if isinstance(spec, PhpPoolSpec))
    assert {site.domain for site in pool.chosen} == {"example.org"}


async def test_strict_package_tells_the_node_that_nothing_starts_programs_and_nobody_logs_in(place: Place) -> None:
    key = {"account_id": place.account_id, "name": "laptop", "public_key": KEY}
    await place.hosting.post("/ssh-keys", key, expect=202)
    open_before = await place.hosting.last_manifest(place.account_id)

    await place.change_package(security={"process_restrictions": "strict"})
    strict_pool, strict = await place.pool(), await place.hosting.last_manifest(place.account_id)
    refused = await place.hosting.post("/ssh-keys", {**key, "name": "second"}, expect=403)
    await place.change_package(security={"process_restrictions": "standard"})
    after_pool, after = await place.pool(), await place.hosting.last_manifest(place.account_id)

    kinds = [[type(spec) is SshAccessSpec for spec in each.specs].count(True) for each in (open_before, strict, after)]
    assert kinds == [1, 0, 1]
    assert strict_pool.is_strict is True
    assert not after_pool.is_strict
    assert refused["code"] == "programs_restricted"

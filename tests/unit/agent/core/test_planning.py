"""Order and dependencies of a manifest's resources."""

from __future__ import annotations

from agent.core.planning import Target, find_missing_need, find_remaining_user, plan_held_targets, plan_targets
from agent.core.records import Holding
from shared.specs.base import Presence
from shared.specs.module import ModuleSpec
from tests.integration.executor import bench

ENABLED, DISABLED, ABSENT = Presence.ENABLED, Presence.DISABLED, Presence.ABSENT


def held(*specs, presence=ENABLED) -> dict[str, Holding]:
    return {spec.key: Holding(spec=spec, presence=presence) for spec in specs}


def summary(targets) -> list[tuple[str, Presence]]:
    return [(target.key, target.presence) for target in targets]


def test_plan_targets_when_new_goes_by_stage() -> None:
    manifest = bench.manifest(1, bench.site(php="8.2"), bench.pool(), bench.account())

    assert summary(plan_targets(manifest, {})) == [
        ("account/alice", ENABLED),
        ("php_pool/alice-8.2", ENABLED),
        ("site/example.com", ENABLED),
    ]


def test_plan_targets_when_php_changes_removes_the_old_pool_last() -> None:
    before = held(bench.account(), bench.pool(), bench.site(php="8.2"))
    manifest = bench.manifest(2, bench.account(), bench.pool(version="8.4"), bench.site(php="8.4"))

    assert summary(plan_targets(manifest, before)) == [
        ("account/alice", ENABLED),
        ("php_pool/alice-8.4", ENABLED),
        ("site/example.com", ENABLED),
        ("php_pool/alice-8.2", ABSENT),
    ]


def test_plan_targets_when_absent_removes_what_holds_and_what_is_named() -> None:
    manifest = bench.manifest(2, bench.site("named.example.com"), presence=ABSENT, held=("site/example.com",))

    assert summary(plan_targets(manifest, held(bench.account(), bench.site()))) == [
        ("site/named.example.com", ABSENT),
        ("site/example.com", ABSENT),
        ("account/alice", ABSENT),
    ]


def test_plan_targets_when_suspended_stops_the_outer_first() -> None:
    specs = (bench.account(), bench.pool(), bench.site(php="8.2"))
    manifest = bench.manifest(2, *specs, presence=DISABLED)

    assert summary(plan_targets(manifest, held(*specs))) == [
        ("site/example.com", DISABLED),
        ("php_pool/alice-8.2", DISABLED),
        ("account/alice", DISABLED),
    ]


def test_plan_targets_when_suspended_and_new_creates_the_account_first() -> None:
    manifest = bench.manifest(1, bench.site(), bench.account(), presence=DISABLED)

    assert summary(plan_targets(manifest, {})) == [("account/alice", DISABLED), ("site/example.com", DISABLED)]


def test_plan_targets_when_held_leaves_it_alone() -> None:
    manifest = bench.manifest(2, bench.account(), held=("site/example.com", "site/new.example.com"))
    before = held(bench.account(), bench.site())

    assert summary(plan_targets(manifest, before)) == [("account/alice", ENABLED)]


def test_plan_targets_when_held_and_suspended_disables_the_last_good_spec() -> None:
    before = held(bench.account(), bench.site())
    manifest = bench.manifest(2, bench.account(), held=("site/example.com",), presence=DISABLED)

    targets = plan_targets(manifest, before)

    assert summary(targets) == [("site/example.com", DISABLED), ("account/alice", DISABLED)]
    assert targets[0].spec == bench.site()


def test_plan_targets_when_held_and_unsuspended_enables_the_last_good_spec() -> None:
    before = {**held(bench.account(), presence=DISABLED), **held(bench.site(), presence=DISABLED)}
    manifest = bench.manifest(3, bench.account(), held=("site/example.com",))

    assert summary(plan_targets(manifest, before)) == [("account/alice", ENABLED), ("site/example.com", ENABLED)]


def test_plan_targets_when_a_module_is_meant_takes_its_own_presence() -> None:
    web, php = ModuleSpec(name="web"), ModuleSpec(name="php", presence=DISABLED)
    manifest = bench.manifest(1, web, php, subject="node")

    assert summary(plan_targets(manifest, {})) == [("module/web", ENABLED), ("module/php", DISABLED)]


def test_plan_held_targets_keeps_each_presence() -> None:
    before = {**held(bench.site(), presence=DISABLED), **held(bench.account())}

    assert summary(plan_held_targets(before)) == [("account/alice", ENABLED), ("site/example.com", DISABLED)]


def test_find_missing_need_when_the_pool_is_parked_names_it() -> None:
    pool = Target(spec=bench.pool(), presence=ENABLED)

    assert find_missing_need(Target(spec=bench.site(php="8.2"), presence=ENABLED), [pool]) is pool
    assert find_missing_need(Target(spec=bench.site(), presence=ENABLED), [pool]) is None
    assert find_missing_need(Target(spec=bench.site(php="8.2"), presence=DISABLED), [pool]) is None


def test_find_remaining_user_when_a_site_stays_names_it() -> None:
    user = bench.site(php="8.2")

    assert find_remaining_user(Target(spec=bench.pool(), presence=ABSENT), [user]) is user
    assert find_remaining_user(Target(spec=bench.account(), presence=ABSENT), [user]) is user
    assert find_remaining_user(Target(spec=bench.pool(version="8.4"), presence=ABSENT), [user]) is None
    assert find_remaining_user(Target(spec=bench.pool(), presence=ENABLED), [user]) is None

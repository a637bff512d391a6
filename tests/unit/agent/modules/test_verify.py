"""verify judges what the user was promised: one wrong thing at a time, and it is noticed."""

from __future__ import annotations

import pytest

from agent.contract.facts import HttpFact
from agent.modules.account.module import AccountConverger
from agent.modules.php.module import PhpHostConverger, PoolConverger
from agent.modules.web import layout, render
from agent.modules.web.module import SiteConverger, WebHostConverger, ask_patiently
from agent.simulator.answers import answer_like_nginx
from agent.simulator.host import MemoryHost
from agent.simulator.host_state import HostState, MemoryUnit
from shared.specs.account import ResourceLimits
from shared.specs.base import Presence
from tests.contract.subjects import ACCOUNT_SPEC, HOSTS, POOL_SPEC, SITE_SPEC, TREES, converge

ALL = (*HOSTS, ACCOUNT_SPEC, POOL_SPEC, SITE_SPEC)
SOCKET_UNIT, SERVICE_UNIT = "wcp-php8.2@20001.socket", "wcp-php8.2@20001.service"


class Web:
    """Answers like nginx, except for the host names and paths that a test names."""

    def __init__(self) -> None:
        self.wrong: dict[tuple[str, str], HttpFact | None] = {}

    def __call__(self, state: HostState, host_name: str, path: str) -> HttpFact | None:
        if (host_name, path) in self.wrong:
            return self.wrong[host_name, path]
        return answer_like_nginx(state, host_name, path)


@pytest.fixture
def web() -> Web:
    return Web()


@pytest.fixture
async def host(web: Web) -> MemoryHost:
    host = MemoryHost(config_trees=TREES, responder=web)
    for spec in ALL:
        await converge(host, spec, Presence.ENABLED)
    return host


async def test_verify_site_when_an_alias_is_answered_by_another_site_is_bad(host: MemoryHost, web: Web) -> None:
    other = HttpFact(status=200, body_start="site bob.test 0123456789abcdef")
    web.wrong["www.example.com", layout.PROBE_PATH] = other

    verification = await SiteConverger(()).verify(SITE_SPEC, Presence.ENABLED, host)

    assert not verification.is_good
    assert "www.example.com is not answered by this site but with 200 'site bob.test" in verification.note


async def test_verify_site_when_nginx_still_has_the_old_configuration_is_bad(host: MemoryHost, web: Web) -> None:
    old = render.probe_answer(SITE_SPEC, is_suspended=True)
    web.wrong["example.com", layout.PROBE_PATH] = HttpFact(status=200, body_start=old)

    assert not (await SiteConverger(()).verify(SITE_SPEC, Presence.ENABLED, host)).is_good


@pytest.mark.parametrize(("status", "is_good"), [(502, False), (503, False), (404, False), (504, True), (200, True)])
async def test_verify_site_judges_php_but_not_how_busy_it_is(
    host: MemoryHost, web: Web, status: int, *, is_good: bool
) -> None:
    web.wrong["example.com", layout.PHP_PROBE_PATH] = HttpFact(status=status, body_start="")

    assert (await SiteConverger(()).verify(SITE_SPEC, Presence.ENABLED, host)).is_good is is_good


async def test_verify_site_when_a_suspended_one_still_serves_is_bad(host: MemoryHost, web: Web) -> None:
    await converge(host, SITE_SPEC, Presence.DISABLED)
    web.wrong["example.com", "/"] = HttpFact(status=200, body_start="hello")

    verification = await SiteConverger(()).verify(SITE_SPEC, Presence.DISABLED, host)

    assert (verification.is_good, verification.note) == (False, "the suspended site answers 200 'hello'")


async def test_verify_site_when_a_removed_one_still_answers_is_bad(host: MemoryHost, web: Web) -> None:
    await converge(host, SITE_SPEC, Presence.ABSENT)
    answer = HttpFact(status=200, body_start=render.probe_answer(SITE_SPEC, is_suspended=False))
    web.wrong["example.com", layout.PROBE_PATH] = answer

    assert not (await SiteConverger(()).verify(SITE_SPEC, Presence.ABSENT, host)).is_good


async def test_verify_web_host_when_nothing_answers_is_bad(host: MemoryHost, web: Web) -> None:
    web.wrong["unknown-host.wcp360.invalid", layout.PROBE_PATH] = None

    verification = await WebHostConverger(()).verify(HOSTS[2], Presence.ENABLED, host)

    assert not verification.is_good
    assert verification.note.endswith("an unknown host gets silence")


async def test_ask_patiently_when_the_reload_takes_its_time_waits_for_it(host: MemoryHost) -> None:
    answers = [None, HttpFact(status=404, body_start=""), HttpFact(status=200, body_start="new")]
    slow = MemoryHost(responder=lambda *_: answers.pop(0))

    answer = await ask_patiently(slow, "x.test", lambda seen: seen is not None and seen.status == 200, (0.0, 0.0, 0.0))

    assert answer == HttpFact(status=200, body_start="new")
    assert answers == []


async def test_verify_pool_when_the_socket_is_closed_is_bad(host: MemoryHost) -> None:
    del host.state.units[SOCKET_UNIT]

    verification = await PoolConverger().verify(POOL_SPEC, Presence.ENABLED, host)

    assert (verification.is_good, verification.note) == (False, f"PHP does not listen at {POOL_SPEC.socket_path}")


async def test_verify_pool_when_the_master_failed_is_bad(host: MemoryHost) -> None:
    host.state.units[SERVICE_UNIT] = MemoryUnit(has_failed=True)

    assert not (await PoolConverger().verify(POOL_SPEC, Presence.ENABLED, host)).is_good


async def test_verify_pool_when_php_runs_outside_the_slice_is_bad(host: MemoryHost) -> None:
    host.state.slices.clear()

    verification = await PoolConverger().verify(POOL_SPEC, Presence.ENABLED, host)

    assert not verification.is_good
    assert "outside user-20001.slice" in verification.note


async def test_verify_pool_when_it_sleeps_is_good(host: MemoryHost) -> None:
    del host.state.units[SERVICE_UNIT]

    assert (await PoolConverger().verify(POOL_SPEC, Presence.ENABLED, host)).note == "PHP 8.2 listens and sleeps"


async def test_verify_pool_when_a_suspended_one_runs_is_bad(host: MemoryHost) -> None:
    assert not (await PoolConverger().verify(POOL_SPEC, Presence.DISABLED, host)).is_good


async def test_verify_php_host_when_the_timer_is_down_names_it(host: MemoryHost) -> None:
    del host.state.units["wcp-php-sleep.timer"]

    verification = await PhpHostConverger().verify(HOSTS[1], Presence.ENABLED, host)

    assert (verification.is_good, verification.note) == (False, "wcp-php-sleep.timer should be up")


async def test_verify_account_when_the_kernel_has_other_limits_is_bad_and_proves_it(host: MemoryHost) -> None:
    host.state.slices["20001"] = ResourceLimits(cpu_percent=400)

    verification = await AccountConverger().verify(ACCOUNT_SPEC, Presence.ENABLED, host)

    assert not verification.is_good
    enforced = {proof.limit: proof.enforced for proof in verification.proofs}
    assert (enforced["cpu_percent"], enforced["memory_bytes"]) == (400, None)


async def test_verify_account_when_a_suspended_one_runs_processes_is_bad(host: MemoryHost) -> None:
    await converge(host, ACCOUNT_SPEC, Presence.DISABLED)
    host.start_processes(20001)

    verification = await AccountConverger().verify(ACCOUNT_SPEC, Presence.DISABLED, host)

    assert (verification.is_good, verification.note) == (False, "processes of the suspended account still run")


async def test_verify_account_when_the_lock_is_missing_is_bad(host: MemoryHost) -> None:
    assert not (await AccountConverger().verify(ACCOUNT_SPEC, Presence.DISABLED, host)).is_good


async def test_verify_account_when_the_user_is_still_there_is_not_gone(host: MemoryHost) -> None:
    assert not (await AccountConverger().verify(ACCOUNT_SPEC, Presence.ABSENT, host)).is_good

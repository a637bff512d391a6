"""Whose messages are sent now, when more wait than can be sent at once."""

from __future__ import annotations

import asyncio

from controller.core.webhooks.delivery import _AT_ONCE, _OWNER_AT_ONCE, _TENANTS_AT_ONCE, _Due, _share_out, _UnderWay


async def test_share_out_when_tenants_have_much_leaves_room_for_the_platform_and_for_each_other() -> None:
    greedy = [_Due(f"e{n}", f"d{n}", "client/greedy") for n in range(50)]
    others = [_Due(f"o{n}", f"p{n}", f"client/{n}") for n in range(50)]
    platform = [_Due(f"a{n}", f"b{n}", "") for n in range(50)]

    chosen = [one.owner for one in _share_out([*greedy, *others, *platform], [], _AT_ONCE)]

    assert chosen.count("client/greedy") == _OWNER_AT_ONCE
    assert len([owner for owner in chosen if owner]) == _TENANTS_AT_ONCE
    assert chosen.count("") == _AT_ONCE - _TENANTS_AT_ONCE


async def test_share_out_counts_what_is_under_way() -> None:
    task = asyncio.create_task(asyncio.sleep(0))
    busy = [_UnderWay("client/greedy", task)] * _OWNER_AT_ONCE
    await task

    assert _share_out([_Due("e", "d", "client/greedy")], busy, 5) == []

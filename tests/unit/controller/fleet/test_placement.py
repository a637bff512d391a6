"""Which node gets the next account."""

from __future__ import annotations

import pytest

from controller.fleet.models import Node
from controller.fleet.nodes.placement import choose, parse_size_fact
from controller.fleet.ports import Committed
from shared.errors import AgentOfflineError, ConflictError, InvalidInputError, QuotaExceededError
from shared.specs.account import GIB, ResourceLimits

LIMITS = ResourceLimits(memory_bytes=GIB, disk_bytes=10 * GIB)


def make_node(name: str, *, memory: int | None = 8, disk: int | None = 100, **options: object) -> Node:
    facts = {}
    if memory is not None:
        facts["memory_bytes"] = str(memory * GIB)
    if disk is not None:
        facts["disk_bytes"] = str(disk * GIB)
    values: dict[str, object] = {"id": name, "name": name, "is_connected": True, "is_cordoned": False, "facts": facts}
    return Node(**(values | options))


def test_choose_takes_the_node_with_the_larger_free_share() -> None:
    nodes = [make_node("a"), make_node("b")]
    committed = {"a": Committed(1, 4 * GIB, 10 * GIB), "b": Committed(1, 2 * GIB, 10 * GIB)}

    assert choose(nodes, committed, LIMITS).name == "b"


def test_choose_judges_a_node_by_its_scarcer_resource() -> None:
    nodes = [make_node("a"), make_node("b")]
    committed = {"a": Committed(1, 0, 80 * GIB), "b": Committed(1, 4 * GIB, 50 * GIB)}

    assert choose(nodes, committed, LIMITS).name == "b"


def test_choose_with_equal_room_takes_the_node_with_fewer_accounts() -> None:
    nodes = [make_node("a"), make_node("b")]
    committed = {"a": Committed(accounts=3), "b": Committed(accounts=2)}

    assert choose(nodes, committed, ResourceLimits()).name == "b"


def test_choose_passes_by_nodes_that_are_cordoned_full_or_away() -> None:
    nodes = [
        make_node("cordoned", is_cordoned=True),
        make_node("away", is_connected=False),
        make_node("full", memory=1),
        make_node("good", memory=2),
    ]
    committed = {"full": Committed(1, GIB, 0), "good": Committed(1, GIB, 0)}

    assert choose(nodes, committed, LIMITS).name == "good"


def test_choose_takes_an_account_that_fits_exactly() -> None:
    assert choose([make_node("a", memory=1, disk=10)], {}, LIMITS).name == "a"


def test_choose_without_facts_sets_no_limit() -> None:
    nodes = [make_node("a", memory=None, disk=None)]

    assert choose(nodes, {"a": Committed(9, 999 * GIB, 999 * GIB)}, LIMITS).name == "a"


def test_choose_without_any_node_says_so() -> None:
    with pytest.raises(ConflictError) as caught:
        choose([make_node("a", is_cordoned=True)], {}, LIMITS)

    assert caught.value.code == "no_node"


def test_choose_with_all_nodes_away_says_so() -> None:
    with pytest.raises(AgentOfflineError):
        choose([make_node("a", is_connected=False)], {}, LIMITS)


def test_choose_with_all_nodes_full_says_what_was_wanted_and_what_is_free() -> None:
    with pytest.raises(QuotaExceededError) as caught:
        choose([make_node("a", disk=9)], {}, LIMITS)

    assert caught.value.code == "nodes_full"
    assert caught.value.context["free"]["a"]["disk_bytes"] == 9 * GIB


@pytest.mark.parametrize("raw", ["", "-1", "1.5", "1e3", "9" * 19, "٣"])
def test_parse_size_fact_of_no_number_is_refused(raw: str) -> None:
    with pytest.raises(InvalidInputError):
        parse_size_fact(raw)

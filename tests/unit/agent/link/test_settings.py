"""agent.toml and identity.json."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.core.identity import Identity
from agent.link.settings import (
    AgentSettings,
    NodePaths,
    parse_agent_toml,
    read_agent_settings,
    render_agent_toml,
    render_identity,
)
from shared.errors import InvalidInputError, NotFoundError

plain = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\'), max_size=60)


@given(plain, plain, plain, plain)
def test_agent_toml_when_rendered_is_read_back(url: str, gateway: str, ca: str, node: str) -> None:
    settings = AgentSettings(controller_url=url, gateway_url=gateway, ca_file=ca, node_id=node)

    assert parse_agent_toml(render_agent_toml(settings)) == settings


@pytest.mark.parametrize("bad", ['x"y', "x\ny", "x\\y", "x\0"])
def test_agent_toml_when_a_value_would_break_out_is_refused(bad: str) -> None:
    with pytest.raises(InvalidInputError, match="impossible gateway_url"):
        render_agent_toml(AgentSettings(controller_url="a", gateway_url=bad, ca_file="c", node_id="d"))


@pytest.mark.parametrize("text", ["", "x = ", "controller_url = 5", 'controller_url = "a"'])
def test_agent_toml_when_damaged_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match=r"agent\.toml cannot be read"):
        parse_agent_toml(text)


def test_settings_when_not_enrolled_say_so(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="not enrolled"):
        read_agent_settings(NodePaths(tmp_path))


def test_identity_is_what_the_executor_reads() -> None:
    raw = render_identity(cluster_id="c", node_id="n", node_gen=3, root_keys={"root": bytes(range(32))})

    identity = msgspec.json.decode(raw, type=Identity)
    assert identity == Identity(cluster_id="c", node_id="n", node_gen=3, root_keys={"root": bytes(range(32))})

"""What is accepted stays in its block, whatever it says: judged by a reader that shares no line with ours."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings

from shared.errors import InvalidInputError
from shared.specs.nginx_block import require_contained
from tests.corpus.nginx_reader import Directive, read_nginx
from tests.unit.shared.strategies import directives

FIRST, LAST = Directive(words=("first",)), Directive(words=("last",))
# `${{"` is one word for nginx, and a block with a quote for who believes that only one { belongs to a $.
TWO_BRACES = 'index ${{" ; } server { server_name victim.test; index "; } set $c "; # ";'


def is_accepted(text: str) -> bool:
    try:
        require_contained(text)
    except InvalidInputError:
        return False
    return True


def stays_in_its_block(text: str) -> bool:
    """As the other reader sees it: between two directives of a server, before another server."""
    try:
        inner = read_nginx(text + "\n")
        top = read_nginx(f"server {{ first;\n{text}\nlast; }} server {{ other; }}")
    except ValueError:
        return False
    other = Directive(words=("server",), block=(Directive(words=("other",)),))
    return top == (Directive(words=("server",), block=(FIRST, *inner, LAST)), other)


@settings(max_examples=1000)
@given(directives)
@example("set $a b#;} server { listen 80; server_name victim.test;")
@example('set $a b";} server { server_name "x;')
@example("set $a it's;} server { server_name 'x;")
@example("add_header X-A it's; set $a b#c; set $b ${host};")
@example(TWO_BRACES)
@example("# }")
@example('a "b") {}')
def test_require_contained_accepts_what_stays_in_its_block_and_nothing_else(text: str) -> None:
    if "${{" in text:
        assert is_accepted(text) <= stays_in_its_block(text)
    else:
        assert is_accepted(text) == stays_in_its_block(text)


@pytest.mark.parametrize(
    "text",
    [TWO_BRACES, "content_by_lua_block { # }\n }", "'content_by_lua_block' {}", 'access_by_lua_block{ x = "}" }'],
)
def test_require_contained_when_nginx_may_read_it_otherwise_refuses(text: str) -> None:
    with pytest.raises(InvalidInputError, match="stand alone"):
        require_contained(text)


def test_require_contained_when_it_refuses_names_the_line_and_the_field() -> None:
    with pytest.raises(InvalidInputError, match=r"the block that they stand in \(line 3\)") as caught:
        require_contained("expires 1d;\n\n}", field="extra_directives")

    assert caught.value.field == "extra_directives"

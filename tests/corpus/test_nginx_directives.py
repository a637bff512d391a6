"""Directives as administrators write them, and as somebody would write them who wants out of the site's block.

Each file of `contained` was accepted, and each of `refused` was refused or let out, by nginx 1.22 and 1.26 themselves;
`two_braces_behind_a_dollar` and `lua_block` (with its module) by their source only.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.modules.web.render import render_site
from shared.errors import InvalidInputError
from shared.specs.site import SiteSpec, require_directives
from shared.types.names import DomainName, UnixName
from tests.corpus.nginx_reader import read_nginx

ROOT = Path(__file__).parent / "nginx"
CONTAINED = sorted((ROOT / "contained").glob("*.conf"))
REFUSED = sorted((ROOT / "refused").glob("*.conf"))


@pytest.mark.parametrize("path", CONTAINED, ids=lambda path: path.stem)
def test_render_site_with_contained_directives_stays_one_server(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    spec = SiteSpec(account=UnixName("alice"), uid=20001, domain=DomainName("example.com"), extra_directives=text)

    top = read_nginx(render_site(spec, is_suspended=False))

    assert [directive.name for directive in top] == ["server"]
    wanted = [directive.words for directive in read_nginx(text)]
    assert [d.words for d in top[0].block if d.words in wanted] == wanted


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_require_directives_with_escaping_directives_refuses_and_names_the_field(path: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        require_directives(path.read_text(encoding="utf-8"))

    assert caught.value.field == "extra_directives"

"""No value, however hostile, becomes anything but a value in nginx's configuration."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.modules.web import layout, render
from shared.errors import InvalidInputError, PlanError
from shared.specs.php_pool import php_socket_path
from shared.specs.site import SiteSpec, site_file_stem
from shared.types.names import DomainName, UnixName
from shared.types.paths import RelativePath
from tests.corpus.nginx_reader import Directive, read_nginx
from tests.unit.agent.modules.strategies import document_roots, domain_names, hostile_text
from tests.unit.shared.strategies import directives

SOCKET = php_socket_path("8.2", 20001)


def make_site(**fields: object) -> SiteSpec:
    values = {"account": UnixName("alice"), "uid": 20001, "domain": DomainName("example.com"), **fields}
    return SiteSpec(**values)  # type: ignore[arg-type] # the tests pass wrong types on purpose


def server_of(text: str) -> Directive:
    """The one server that a site's file must be."""
    top = read_nginx(text)
    assert [directive.name for directive in top] == ["server"]
    return top[0]


def words_of(server: Directive, name: str) -> tuple[str, ...]:
    return next(directive.words[1:] for directive in server.block if directive.name == name)


@given(hostile_text)
@example('a"b')
@example("a\\")
@example("a;}\nserver{")
def test_quote_nginx_with_any_text_is_read_back_or_refused(text: str) -> None:
    try:
        quoted = render.quote_nginx(text)
    except PlanError:
        assert "$" in text or not text.isprintable()
        return

    assert read_nginx(f"set {quoted};") == (Directive(words=("set", text)),)


@given(
    domain=domain_names,
    aliases=st.lists(domain_names, max_size=3),
    root=document_roots,
    has_php=st.booleans(),
    is_suspended=st.booleans(),
)
def test_render_site_with_any_valid_spec_is_one_server_with_its_values(
    domain: str, aliases: list[str], root: str, *, has_php: bool, is_suspended: bool
) -> None:
    names = tuple(DomainName(name) for name in dict.fromkeys([domain, *aliases]))
    spec = make_site(
        domain=names[0],
        aliases=names[1:],
        document_root=RelativePath(root),
        php_socket_path=SOCKET if has_php else None,
    )

    server = server_of(render.render_site(spec, is_suspended=is_suspended))

    assert words_of(server, "server_name") == names
    served = layout.PAGES_DIR if is_suspended else layout.document_root(spec)
    assert words_of(server, "root") == (served,)


@given(directives)
@example("set $a b#;} server { listen 80; }")
@example('set $a b";} server { server_name "x;')
@example("add_header X-A b")
@example("# }")
def test_render_site_with_any_directives_is_one_server_or_refused(text: str) -> None:
    try:
        spec = make_site(extra_directives=text)
    except InvalidInputError:
        return

    server = server_of(render.render_site(spec, is_suspended=False))
    plain = server_of(render.render_site(make_site(), is_suspended=False))
    # Ours are all still there, and no other server has appeared inside or beside it.
    ours = [words for words in (d.words for d in plain.block) if words[:3] != ("location", "=", layout.PROBE_PATH)]
    assert [words for words in (d.words for d in server.block) if words in ours][-1] == ours[-1]
    assert {tuple(words) for words in ours} <= {d.words for d in server.block}


@pytest.mark.parametrize("field", ["account", "domain", "document_root"])
@given(text=hostile_text)
def test_site_spec_with_hostile_text_is_refused_or_harmless(field: str, text: str) -> None:
    try:
        spec = make_site(**{field: text})
    except InvalidInputError:
        return

    server = server_of(render.render_site(spec, is_suspended=False))
    assert words_of(server, "server_name") == (spec.domain,)
    assert words_of(server, "root") == (layout.document_root(spec),)


@given(hostile_text)
@example("/run/wcp-php/8.2/20002.sock")
@example("/run/wcp-php/8.2/20001.sock;")
@example("/run/wcp-php/../x/20001.sock")
@example('/run/wcp-php/8.2/20001.sock";}')
def test_render_site_with_another_php_socket_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="not a PHP socket"):
        render.render_site(make_site(php_socket_path=text), is_suspended=False)


def test_render_site_twice_is_byte_for_byte_the_same() -> None:
    spec = make_site(php_socket_path=SOCKET, extra_directives="add_header X-A b;")

    assert render.render_site(spec, is_suspended=False) == render.render_site(spec, is_suspended=False)


def test_probe_answer_when_anything_changes_is_another() -> None:
    specs = [
        make_site(),
        make_site(aliases=(DomainName("www.example.com"),)),
        make_site(php_socket_path=SOCKET),
        make_site(extra_directives="add_header X-A b;"),
        make_site(upload_max_bytes=1),
    ]

    answers = {render.probe_answer(spec, is_suspended=is_down) for spec in specs for is_down in (False, True)}

    # A suspended site does not show its PHP, directives or upload limit: those three look like the first.
    assert len(answers) == len(specs) + 2


def test_parse_account_of_a_rendered_site_is_its_account() -> None:
    for is_suspended in (False, True):
        assert render.parse_account(render.render_site(make_site(), is_suspended=is_suspended)) == "alice"


@pytest.mark.parametrize("text", ["", "server {}", "#account: bob"])
def test_parse_account_of_a_foreign_file_is_none(text: str) -> None:
    assert render.parse_account(text) is None


def test_render_main_is_readable_and_includes_the_sites_by_their_absolute_path() -> None:
    top = read_nginx(render.render_main(has_ipv6=True))

    http = next(directive for directive in top if directive.name == "http")
    includes = [directive.words[1] for directive in http.block if directive.name == "include"]
    assert includes[-1] == f"{layout.SITES_DIR}/*.conf"
    assert all(path.startswith("/") for path in includes)


def test_render_listen_without_ipv6_has_no_ipv6_socket() -> None:
    assert "[::]" not in render.render_listen(has_ipv6=False)
    assert "[::]" in render.render_listen(has_ipv6=True)


def test_file_stem_of_the_longest_domain_fits_a_file_name_and_stays_unique() -> None:
    first, second = (DomainName(".".join(["a" * 62, "b" * 62, "c" * 62, f"{i}" * 58, "test"])) for i in (1, 2))

    assert site_file_stem(first) != site_file_stem(second)
    assert len(f"{site_file_stem(first)}.access.log.14.gz") < 255

"""Which hand edits of a site's file can be adopted."""

from __future__ import annotations

import pytest

from agent.system.diffs import render_diff
from controller.modules.web.additions import merge, parse_additions
from shared.errors import ConflictError

PATH = "/etc/nginx/wcp360/sites/example.com.conf"
BASE = """\
# Managed by WCP360
server {
    server_name example.com;
    location ~ "/\\.(?!well-known(?:/|$))" {
        return 404;
    }

    location ~ php {
        return 404;
    }
}
"""
BLOCK = "    location = /x {\n        return 404;\n    }\n"


def diff_to(edited: str, *, is_whole: bool = True) -> str:
    return render_diff(PATH, edited, BASE, is_secret=False, is_whole=is_whole)


def added_behind(anchor: str, text: str) -> str:
    return BASE.replace(anchor, anchor + text, 1)


@pytest.mark.parametrize(
    ("edited", "wanted"),
    [
        (added_behind("example.com;\n", "    gzip on;\n"), ("    gzip on;",)),
        (added_behind("example.com;\n", "    gzip\n        on;\n"), ("    gzip\n        on;",)),
        (added_behind("server {\n", "\n    # why\n    gzip on;\n\n"), ("    # why\n    gzip on;",)),
        (added_behind("example.com;\n", BLOCK), (BLOCK.rstrip(),)),
        (
            added_behind("example.com;\n", "    gzip on;\n").replace("    }\n}", f"    }}\n{BLOCK}}}"),
            ("    gzip on;", BLOCK.rstrip()),
        ),
    ],
    ids=["directive", "two lines", "comment and blank lines", "block", "two places"],
)
def test_parse_additions_when_lines_were_only_added_gives_them(edited: str, wanted: tuple[str, ...]) -> None:
    assert parse_additions(diff_to(edited)) == wanted


@pytest.mark.parametrize("anchor", ["        return 404;\n    }\n", "        return 404;\n    }\n\n"])
def test_parse_additions_when_the_block_looks_like_its_neighbour_gives_the_whole_block(anchor: str) -> None:
    """The diff may show it one bracket too early."""
    (addition,) = parse_additions(diff_to(added_behind(anchor, f"\n{BLOCK}")))

    assert addition == BLOCK.rstrip()


@pytest.mark.parametrize(
    ("edited", "reason"),
    [
        (BASE.replace("example.com;", "example.net;"), "changed or removed"),
        (BASE.replace("    server_name example.com;\n", ""), "changed or removed"),
        (added_behind("~ php {\n", "        gzip on;\n"), "directly in the server block"),
        (f"{BASE}# by hand\n", "directly in the server block"),
        (f"gzip on;\n{BASE}", "directly in the server block"),
        (added_behind("example.com;\n", "    }\n    server {\n"), "directly in the server block"),
        (added_behind("example.com;\n", "    gzip on\n"), "directly in the server block"),
        (added_behind("example.com;\n", "    if ($a) {\n"), "not closed"),
        (added_behind("example.com;\n", "\n\n"), "no directive"),
        (added_behind("example.com;\n", "    # \ufffd\n"), "not UTF-8"),
    ],
    ids=[
        "changed", "removed", "in a location", "behind the server", "before the server", "leaves the server",
        "half a directive", "open block", "blank lines", "not UTF-8",
    ],
)  # fmt: skip
def test_parse_additions_when_more_was_done_refuses(edited: str, reason: str) -> None:
    with pytest.raises(ConflictError, match=reason):
        parse_additions(diff_to(edited))


@pytest.mark.parametrize(
    "diff",
    [
        "",
        diff_to(added_behind("~ php {\n        return 404;\n    }\n", "    gzip on;\n"), is_whole=False),
        render_diff(PATH, None, BASE, is_secret=False, is_whole=True),
        render_diff(PATH, "a\n", "b\n", is_secret=True),
        f"{diff_to(added_behind('example.com;', ' gzip on;'))[:150]}\n... 99 more characters\n",
        diff_to(added_behind("example.com;\n", "    gzip on;\n")) * 2,
    ],
    ids=["none", "little context", "missing file", "not shown", "cut", "two files"],
)
def test_parse_additions_when_the_diff_is_not_one_whole_file_refuses(diff: str) -> None:
    with pytest.raises(ConflictError) as caught:
        parse_additions(diff)

    assert caught.value.code == "not_adoptable"


def test_merge_when_some_is_wanted_already_adds_the_rest_only() -> None:
    assert merge("gzip on;\n", ("gzip on;", "etag off;")) == "gzip on;\netag off;"
    assert merge("", ("gzip on;", "etag off;")) == "gzip on;\netag off;"


def test_merge_when_all_is_wanted_already_refuses() -> None:
    with pytest.raises(ConflictError, match="already"):
        merge("etag off;\ngzip on;", ("gzip on;",))

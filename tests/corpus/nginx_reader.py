"""A second, independent reader of nginx configuration, for tests: one regular expression for tokens, recursion for blocks.

Source: ngx_conf_read_token() in src/core/ngx_conf_file.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

TOKEN = re.compile(
    r"""
      (?P<space>[ \t\r\n]+)
    | (?P<comment>\#[^\n]*)
    | (?P<mark>[;{}])
    | "(?P<double>(?:[^"\\]|\\.)*)"(?=[ \t\r\n;{)])
    | '(?P<single>(?:[^'\\]|\\.)*)'(?=[ \t\r\n;{)])
    | (?P<word>(?:\\.|\$\{+|[^ \t\r\n;{}"'\#\\])(?:\\.|\$\{+|[^ \t\r\n;{\\])*)
    """,
    re.VERBOSE | re.DOTALL,
)
ESCAPE = re.compile(r"\\([\"'\\trn])")
CONTROL = {"t": "\t", "r": "\r", "n": "\n"}


class Directive(msgspec.Struct, frozen=True, kw_only=True):
    """One directive; `block` is empty for a simple one."""

    words: tuple[str, ...]
    block: tuple[Directive, ...] = ()

    @property
    def name(self) -> str:
        return self.words[0]


def read_nginx(text: str) -> tuple[Directive, ...]:
    """Read a whole file.

    Raises:
        ValueError: It is no configuration.
    """
    tokens = _list_tokens(text)
    directives = _read_block(tokens, is_outermost=True)
    if next(tokens, None) is not None:
        raise ValueError("a } too many")
    return directives


def _list_tokens(text: str) -> Iterator[tuple[str, str]]:
    position = 0
    while position < len(text):
        found = TOKEN.match(text, position)
        if found is None:
            raise ValueError(f"unreadable at {text[position : position + 30]!r}")
        position = found.end()
        kind = str(found.lastgroup)
        if kind in {"double", "single", "word"}:
            yield "word", _unescape(found[kind])
        elif kind == "mark":
            yield found[kind], ""


def _unescape(raw: str) -> str:
    """What nginx makes of backslashes: it knows six escapes and leaves the others as they are."""
    return ESCAPE.sub(lambda found: CONTROL.get(found[1], found[1]), raw)


def _read_block(tokens: Iterator[tuple[str, str]], *, is_outermost: bool) -> tuple[Directive, ...]:
    found: list[Directive] = []
    words: list[str] = []
    for kind, word in tokens:
        if kind == "word":
            words.append(word)
        elif kind == "}":
            if words or is_outermost:
                raise ValueError("a } in the wrong place")
            return tuple(found)
        else:
            if not words:
                raise ValueError("a directive without a name")
            block = _read_block(tokens, is_outermost=False) if kind == "{" else ()
            found.append(Directive(words=tuple(words), block=block))
            words = []
    if words or not is_outermost:
        raise ValueError("the end came too early")
    return tuple(found)

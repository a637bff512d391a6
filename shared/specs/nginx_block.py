"""nginx's own reading of configuration text: does a piece of it stay inside the block that it is put into? Pure.

Source: ngx_conf_read_token() in src/core/ngx_conf_file.c, nginx 1.22 to 1.28. Quotes open a string and `#` a comment
only where a word could begin; anywhere else they are ordinary characters. What only some nginx reads that way is
refused: `${{` (`$` and all the `{` behind it belong to the word), and blocks of Lua, which another parser reads.
"""

from __future__ import annotations

from typing import Final

from shared.errors import InvalidInputError

_SPACE: Final = " \t\r\n"
_LUA_BLOCK: Final = "_by_lua_block"
"""How the directives end whose block is Lua. Source: openresty/lua-nginx-module, README, directives."""


def require_contained(text: str, *, field: str | None = None) -> str:
    """Return the text if nginx reads it as whole directives that open and close their own blocks only.

    Args:
        text: May end in a comment without a line break; whoever puts it somewhere adds one.
        field: What the error names.

    Raises:
        InvalidInputError: It would leave its block, or ends in the middle of something.
    """
    reader = _Reader(text, field)
    while not reader.is_at_end:
        reader.step()
    reader.require_complete()
    return text


class _Reader:
    """One pass over the text. `_depth` is relative to where the text stands."""

    def __init__(self, text: str, field: str | None) -> None:
        self._text = text
        self._field = field
        self._position = 0
        self._depth = 0
        self._name = ""
        """First word of the directive as it is written; empty between two directives."""

    @property
    def is_at_end(self) -> bool:
        return self._position >= len(self._text)

    def step(self) -> None:
        """Read one space, comment, bracket, end of directive or word."""
        character = self._text[self._position]
        if character in _SPACE:
            self._position += 1
        elif character == "#":
            end = self._text.find("\n", self._position)
            self._position = len(self._text) if end < 0 else end
        elif character in ";{":
            self._end_directive(opens=character == "{")
        elif character == "}":
            self._close()
        elif character in "\"'":
            self._read_quoted(character)
        else:
            self._read_word()

    def require_complete(self) -> None:
        if self._name:
            raise self._refusal("the last directive has no ;")
        if self._depth != 0:
            raise self._refusal("a { has no }")

    def _end_directive(self, *, opens: bool) -> None:
        if not self._name:
            raise self._refusal("a directive has no name")
        if opens and self._name.strip("\"'").endswith(_LUA_BLOCK):
            raise self._refusal("a block of Lua cannot be judged, use a file instead")
        self._name = ""
        self._depth += 1 if opens else 0
        self._position += 1

    def _close(self) -> None:
        if self._name:
            raise self._refusal("a } stands inside a directive")
        self._depth -= 1
        if self._depth < 0:
            raise self._refusal("a } closes the block that they stand in")
        self._position += 1

    def _read_quoted(self, quote: str) -> None:
        start = self._position
        position = start + 1
        while position < len(self._text) and self._text[position] != quote:
            position += 2 if self._text[position] == "\\" else 1
        if position >= len(self._text):
            raise self._refusal("a quote stays open")
        self._position = position + 1
        self._note_word(start)
        # nginx wants a space, `;`, `{` or `)` here; `)` begins the next word, so all others are an error.
        if not self.is_at_end and self._text[self._position] not in _SPACE + ";{)":
            raise self._refusal("text follows directly on a closing quote")

    def _read_word(self) -> None:
        start = self._position
        follows_dollar = False
        while not self.is_at_end:
            character = self._text[self._position]
            if character in _SPACE + ";" or (character == "{" and not follows_dollar):
                break
            if self._text.startswith("{{", self._position):
                raise self._refusal("two { follow on a $")
            follows_dollar = character == "$"
            self._position += 2 if character == "\\" else 1
        self._note_word(start)

    def _note_word(self, start: int) -> None:
        self._name = self._name or self._text[start : self._position]

    def _refusal(self, complaint: str) -> InvalidInputError:
        line = self._text.count("\n", 0, self._position) + 1
        return InvalidInputError(f"the directives do not stand alone: {complaint} (line {line})", field=self._field)

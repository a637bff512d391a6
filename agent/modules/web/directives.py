"""nginx's own reading of configuration text: does a piece of it stay inside the block that it is put into?

Source: ngx_conf_read_token() in src/core/ngx_conf_file.c, nginx 1.22 to 1.28. Quotes open a string and `#` a comment
only where a word could begin; anywhere else they are ordinary characters.
"""

from __future__ import annotations

from typing import Final

from shared.errors import PlanError

_SPACE: Final = " \t\r\n"


def require_contained(text: str) -> str:
    """Return the text if nginx reads it as whole directives that open and close their own blocks only.

    Raises:
        PlanError: It would leave its block, or ends in the middle of something.
    """
    reader = _Reader(text)
    while not reader.is_at_end:
        reader.step()
    reader.require_complete()
    return text


class _Reader:
    """One pass over the text. `depth` is relative to where the text stands."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self._depth = 0
        self._has_words = False

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
        if self._has_words:
            raise _refusal("the last directive has no ;")
        if self._depth != 0:
            raise _refusal("a { has no }")

    def _end_directive(self, *, opens: bool) -> None:
        if not self._has_words:
            raise _refusal("a directive has no name")
        self._has_words = False
        self._depth += 1 if opens else 0
        self._position += 1

    def _close(self) -> None:
        if self._has_words:
            raise _refusal("a } stands inside a directive")
        self._depth -= 1
        if self._depth < 0:
            raise _refusal("a } closes the site's own block")
        self._position += 1

    def _read_quoted(self, quote: str) -> None:
        position = self._position + 1
        while position < len(self._text) and self._text[position] != quote:
            position += 2 if self._text[position] == "\\" else 1
        if position >= len(self._text):
            raise _refusal("a quote stays open")
        self._position = position + 1
        self._has_words = True
        # nginx wants a space, `;`, `{` or `)` here; `)` begins the next word, so all others are an error.
        if not self.is_at_end and self._text[self._position] not in _SPACE + ";{)":
            raise _refusal("text follows directly on a closing quote")

    def _read_word(self) -> None:
        follows_dollar = False
        while not self.is_at_end:
            character = self._text[self._position]
            if character in _SPACE + ";" or (character == "{" and not follows_dollar):
                break
            follows_dollar = character == "$"
            self._position += 2 if character == "\\" else 1
        self._has_words = True


def _refusal(complaint: str) -> PlanError:
    return PlanError(
        f"the additional directives of the site do not stand alone: {complaint}",
        hint="Correct the site's additional directives.",
        code="config_refused",
    )

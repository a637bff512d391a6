"""`wcp360 accounts list --json` as people type it: options of the whole program come after the verb too. Pure."""

from __future__ import annotations

from collections.abc import Sequence

SWITCHES = ("--json", "--verbose", "-v")
WITH_VALUE = ("--profile", "--controller", "--ca-file")


def hoist(words: Sequence[str]) -> list[str]:
    """The words with the program's own options first; what follows a bare `--` stays as it is.

    A value that looks like one of them is still possible: `--reason=--json`.
    """
    front: list[str] = []
    rest: list[str] = []
    remaining = list(words)
    while remaining:
        word = remaining.pop(0)
        if word == "--":
            return [*front, *rest, word, *remaining]
        if word in SWITCHES or word.startswith(tuple(f"{name}=" for name in WITH_VALUE)):
            front.append(word)
        elif word in WITH_VALUE and remaining:
            front += [word, remaining.pop(0)]
        else:
            rest.append(word)
    return [*front, *rest]

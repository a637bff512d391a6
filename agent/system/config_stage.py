"""A service's configuration as it would be, changed files included, for its own validator to read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.contract.actions import ConfigTree
from agent.system.tree import remove_tree
from shared.errors import ConfigTestError, FactError

MAX_REWRITTEN_BYTES: Final = 256 * 1024
_LOG_PREFIX: Final = re.compile(r"^\d{4}/\d\d/\d\d \d\d:\d\d:\d\d \[(\w+)\] \d+#\d+: ", re.MULTILINE)
"""nginx begins a message with the time and its process id."""

Overlay = Mapping[str, bytes | None]
"""File name in the live folder to its new content; None: removed."""


def needs_single_files(tree: ConfigTree) -> bool:
    """Whether the validator judges one file at a time."""
    return any("{file}" in word for word in tree.validator)


class Stage:
    """One tree's stage: `<root>/<tree>/live` stands for the live folder, `<root>/<tree>/main` for the main file's.

    Files that do not change are symbolic links to the live ones (the stage is on /run, where no hard link leads to
    from /etc). The main file's folder is mirrored whole, because services resolve includes relative to it, with every
    mention of the live places replaced by the staged ones.
    """

    def __init__(self, tree: ConfigTree, root: Path) -> None:
        self.tree = tree
        self.directory = root / tree.name
        self.live = self.directory / "live"
        self.main = self.directory / "main"

    def build(self, overlay: Overlay) -> None:
        """Make the stage anew.

        Raises:
            ConfigTestError: The main file does not include the live folder, so that nothing would be judged.
            FactError: The live configuration cannot be read.
        """
        self.remove()
        self.live.mkdir(mode=0o700, parents=True)
        live_dir = Path(self.tree.live_dir)
        try:
            for entry in os.scandir(live_dir) if live_dir.is_dir() else ():
                if entry.name not in overlay:
                    (self.live / entry.name).symlink_to(entry.path)
            for name, content in overlay.items():
                if content is not None:
                    (self.live / name).write_bytes(content)
            if self.tree.main_file is not None:
                self._mirror_main(Path(self.tree.main_file))
        except OSError as error:
            raise FactError(f"the configuration of {self.tree.name} cannot be staged: {error}") from error

    def _mirror_main(self, main_file: Path) -> None:
        if not main_file.is_file():
            raise ConfigTestError(f"{main_file} is missing: is the service installed?", code="config_main_missing")
        is_included = self._mirror(main_file.parent, self.main)
        if not is_included:
            raise ConfigTestError(
                f"neither {main_file} nor what lies beside it includes {self.tree.live_dir}: nothing would be judged",
                hint="The module's own include file is missing; repair the node.",
                code="config_not_included",
            )

    def _mirror(self, source: Path, target: Path) -> bool:
        """Mirror a folder; whether one of its files mentions the live folder."""
        target.mkdir(mode=0o700)
        is_included = False
        for entry in os.scandir(source):
            path, copy = Path(entry.path), target / entry.name
            if path == Path(self.tree.live_dir):
                copy.symlink_to(self.live)
            elif entry.is_dir(follow_symlinks=False):
                is_included = self._mirror(path, copy) or is_included
            elif entry.is_file(follow_symlinks=False) and entry.stat().st_size <= MAX_REWRITTEN_BYTES:
                is_included = self._rewrite(path, copy) or is_included
            elif entry.is_symlink() and not path.readlink().is_absolute():
                copy.symlink_to(path.readlink())
            else:
                copy.symlink_to(path)
        return is_included

    def _rewrite(self, path: Path, copy: Path) -> bool:
        content = path.read_bytes()
        mentions = self.tree.live_dir.encode() in content
        if mentions or self._main_prefix in content:
            content = content.replace(self.tree.live_dir.encode(), str(self.live).encode())
            copy.write_bytes(content.replace(self._main_prefix, f"{self.main}/".encode()))
        else:
            copy.symlink_to(path)
        return mentions

    @property
    def _main_prefix(self) -> bytes:
        return f"{Path(self.tree.main_file or '/').parent}/".encode()

    def commands(self, names: tuple[str, ...]) -> list[tuple[str, ...]]:
        """The validator's argument lists: one for the whole stage, or one for each of these files."""
        main_name = Path(self.tree.main_file).name if self.tree.main_file else ""
        places = {"{stage_dir}": str(self.live), "{stage}": str(self.main / main_name)}
        if needs_single_files(self.tree):
            return [self._fill({**places, "{file}": str(self.live / name)}) for name in names]
        return [self._fill(places)]

    def _fill(self, places: Mapping[str, str]) -> tuple[str, ...]:
        words = []
        for template in self.tree.validator:
            word = template
            for mark, value in places.items():
                word = word.replace(mark, value)
            words.append(word)
        return tuple(words)

    def translate(self, said: str) -> str:
        """The validator's words with the live places in them, and without what differs each time."""
        said = said.replace(str(self.live), self.tree.live_dir)
        if self.tree.main_file is not None:
            said = said.replace(str(self.main), str(Path(self.tree.main_file).parent))
        return _LOG_PREFIX.sub(r"[\1] ", said).strip()

    def remove(self) -> None:
        remove_tree(str(self.directory))

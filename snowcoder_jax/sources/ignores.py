"""What a repository itself ignores: `.gitignore` files in any folder, and `.git/info/exclude`."""

from __future__ import annotations

import contextlib
import re
import warnings
from dataclasses import dataclass

from pathspec import GitIgnoreSpec
from pathspec.patterns.gitignore import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

MAX_BYTES = 100_000
_STARS = re.compile(r"[^/*]\*+|^\*+(?=[^/])")
# Matching takes time that grows with this power of the length of a name.
_MAX_STARS = 4


@dataclass(frozen=True)
class Ignores:
    """The patterns that hold in a folder: (folder they are relative to, patterns), nearest first.

    As in git, the last pattern of the nearest file that fits decides, and nothing below an
    ignored folder can be taken back in.
    """

    layers: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    def with_file(self, folder: str, text: str) -> Ignores:
        """These and those of a file; `folder` is "" or ends with a slash."""
        spec = GitIgnoreSpec(_patterns(text), backend="simple")
        return Ignores(((folder, spec), *self.layers)) if spec.patterns else self

    def cover(self, path: str) -> bool:
        """Whether a path is ignored; that of a folder ends with a slash."""
        for folder, spec in self.layers:
            included = spec.check_file(path[len(folder) :]).include
            if included is not None:
                return included
        return False


def _patterns(text: str) -> list[GitIgnoreSpecPattern]:
    """The patterns of a file; git passes over lines that it cannot read, and so is done here."""
    found: list[GitIgnoreSpecPattern] = []
    for line in text.splitlines():
        if is_slow(line):
            continue
        with warnings.catch_warnings(), contextlib.suppress(GitIgnorePatternError, re.error):
            warnings.simplefilter("ignore", FutureWarning)  # of `re`, for "[["
            found += GitIgnoreSpec.from_lines([line], backend="simple").patterns
    return [pattern for pattern in found if pattern.include is not None]


def is_slow(pattern: str) -> bool:
    """Whether matching a pattern could take very long."""
    stars = max(len(_STARS.findall(part)) for part in pattern.split("/"))
    return max(stars, pattern.count("**")) > _MAX_STARS

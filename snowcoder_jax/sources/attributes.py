"""What a repository says of its own files in `.gitattributes`, in any folder: `linguist-vendored`
and `linguist-generated`, which go before Linguist's tables of paths, either way.

As in git, a pattern is of files and never of a folder with all that is in it (`docs/**` is), the
last line that fits decides, and the nearest file goes before those above it. What tells a generated
file by its content is one of the file rules, which know nothing of this.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from snowcoder_jax.sources import ignores

FILENAME = ".gitattributes"
MAX_BYTES = 100_000
_REASONS = {"linguist-vendored": "vendored", "linguist-generated": "generated"}
_QUOTED = re.compile(r'"([^"\\]*)"\s(.*)')
_SPECIAL = re.compile(r"[*?[\\]")


@dataclass(frozen=True, slots=True)
class _Line:
    """A pattern and what it says: reason -> whether it holds, None to leave it to the tables.

    Attributes:
      beginning: that every path which fits starts with.
    """

    pattern: re.Pattern[str]
    beginning: str
    says: dict[str, bool | None]


@dataclass(frozen=True)
class Attributes:
    """The lines that hold in a folder, those that decide first: (folder of their file, line)."""

    lines: tuple[tuple[str, _Line], ...] = ()

    def with_file(self, folder: str, text: str) -> Attributes:
        """These and those of a file; `folder` is "" or ends with a slash."""
        own = [(folder, line) for line in _lines(text)]
        return Attributes((*reversed(own), *self.lines)) if own else self

    def of(self, path: str) -> dict[str, bool]:
        """Reason -> whether it holds of a file; without those that are left to the tables."""
        found: dict[str, bool | None] = {}
        for folder, line in self.lines:
            # Most lines of a long file end here: a string costs less than a pattern.
            if not path.startswith(line.beginning, len(folder)):
                continue
            if line.says.keys() - found.keys() and line.pattern.fullmatch(path, len(folder)):
                found = {**line.says, **found}
        return {reason: said for reason, said in found.items() if said is not None}

    def may_take_back(self, reason: str, folder: str) -> bool:
        """Whether a file below a folder may be said to be no such one."""
        for above, line in self.lines:
            if line.says.get(reason) is False:
                beginning = above + line.beginning
                if beginning.startswith(folder) or folder.startswith(beginning):
                    return True
        return False


def _lines(text: str) -> Iterator[_Line]:
    """The lines that say something of interest; git passes over what it cannot read, too."""
    for line in text.splitlines():
        line = line.strip()
        if "linguist-" not in line or line.startswith(("#", "!", "[attr]")):
            continue
        if quoted := _QUOTED.fullmatch(line):
            pattern, stated = quoted[1], quoted[2].split()
        else:
            pattern, *stated = line.split()
        says = dict(filter(None, map(_statement, stated)))
        if says and (found := _regex(pattern)):
            beginning = _SPECIAL.split(pattern, maxsplit=1)[0] if "/" in pattern else ""
            yield _Line(found, beginning.removeprefix("/"), says)


def _statement(stated: str) -> tuple[str, bool | None] | None:
    name, _, value = stated.lstrip("-!").partition("=")
    if name not in _REASONS:
        return None
    if stated.startswith("!"):
        return _REASONS[name], None
    return _REASONS[name], not stated.startswith("-") and value != "false"


def _regex(pattern: str) -> re.Pattern[str] | None:
    """A pattern over paths as git reads it here; None for one that fits no file."""
    if pattern.endswith("/") or ignores.is_slow(pattern):
        return None
    # Without a slash it is of a name in any folder.
    parts = [] if "/" in pattern else ["(?:.*/)?"]
    pattern = pattern.removeprefix("/")
    at = 0
    while at < len(pattern):
        rest, starts_part = pattern[at:], at == 0 or pattern[at - 1] == "/"
        taken = 1
        if starts_part and (rest == "**" or rest.startswith("**/")):
            parts.append(".*" if rest == "**" else "(?:.*/)?")
            taken = len(rest) if rest == "**" else 3
        elif rest[0] == "*":
            parts.append("[^/]*")
            taken = len(rest) - len(rest.lstrip("*"))
        elif rest[0] == "?":
            parts.append("[^/]")
        elif rest[0] == "[" and (end := rest.find("]", 2)) > 0:
            negated = rest[1] in "!^"
            inside = re.sub(r"([\\\[^&~|])", r"\\\1", rest[2 if negated else 1 : end])
            parts.append(f"(?!/)[{'^' if negated else ''}{inside}]")
            taken = end + 1
        elif rest[0] == "\\" and len(rest) > 1:
            parts.append(re.escape(rest[1]))
            taken = 2
        else:
            parts.append(re.escape(rest[0]))
        at += taken
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error:
        return None

"""What a teacher's reply holds: its fenced code blocks, and the languages their tags name."""

from __future__ import annotations

import dataclasses
import re

from snowcoder_jax.languages import LANGUAGES, NOTEBOOK

# The tag of a block of each language, as templates ask for it.
TAGS: dict[str, str] = {language.name: language.name.lower() for language in LANGUAGES} | {
    "C++": "cpp",
    "C#": "csharp",
    "Shell": "bash",
    NOTEBOOK: "python",  # as the script that it becomes
}
# Other tags of it that teachers write.
_OTHER_TAGS: dict[str, str] = {
    "Python": "py python3",
    "C++": "c++ cc cxx hpp",
    "C": "h",
    "C#": "c# cs",
    "JavaScript": "js jsx mjs cjs node",
    "TypeScript": "ts tsx",
    "Go": "golang",
    "SQL": "mysql postgresql postgres pgsql plpgsql plsql tsql sqlite",
    "Ruby": "rb",
    "Rust": "rs",
    "Kotlin": "kt kts",
    "Shell": "sh shell zsh ksh shell-script",
    NOTEBOOK: "py python3 jupyter ipython",
}

# CommonMark 0.31 section 4.5: three or more, indented by three blanks at most; the text after an
# opening of backticks holds none.
_OPENING = re.compile(r" {0,3}(?:(`{3,})([^`]*)|(~{3,})(.*))")
# `python title="x"` and `python:x.py` are both in Python.
_TAG = re.compile(r"[\w+#-]*")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes:
      tag: the language named after its opening fence, in lower case; "" where there is none.
      text: its lines, each with its line break.
      is_closed: False where the reply ended in it.
    """

    tag: str
    text: str
    is_closed: bool


def code_blocks(reply: str) -> list[Block]:
    """The fenced blocks of a reply in Markdown, in order; linear in its length."""
    blocks = []
    fence, tag, body = "", "", list[str]()
    for line in reply.replace("\r\n", "\n").split("\n"):
        if fence:
            bare = line.strip(" \t")
            indentation = len(line) - len(line.lstrip(" "))
            if len(bare) >= len(fence) and bare == fence[0] * len(bare) and indentation <= 3:
                blocks.append(Block(tag, "".join(body), True))
                fence = ""
            else:
                body.append(line + "\n")
        elif opening := _OPENING.fullmatch(line):
            fence = opening[1] or opening[3]
            info = (opening[2] or opening[4] or "").strip().lower()
            tag, body = _TAG.match(info)[0], []  # type: ignore[index]
    if fence:
        blocks.append(Block(tag, "".join(body), False))
    return blocks


def names_language(tag: str, language: str) -> bool:
    """Whether a block's tag says that it is in `language`; without a tag it may be."""
    return tag in ("", TAGS[language], *_OTHER_TAGS.get(language, "").split())

"""The 18 languages of the recipe, in one table.

Names, extensions and natural mix follow arXiv 2409.02326 section 2 and the StarCoderData
weights; file names and shebangs follow GitHub Linguist's `languages.yml` (MIT).
"""

from __future__ import annotations

import dataclasses
import os
import re


@dataclasses.dataclass(frozen=True)
class Language:
    """One language: how its files are recognised, and how it is written.

    Attributes:
      name: the name used in recipes and reports.
      extensions: lower case, with the dot.
      filenames: exact file names.
      interpreters: names that a shebang line may end with.
      line_comment: the marker that starts a comment to the end of the line.
      mix_percent: share of the natural mix, in percent of bytes, before scaling to 100.
    """

    name: str
    extensions: tuple[str, ...]
    filenames: tuple[str, ...] = ()
    interpreters: tuple[str, ...] = ()
    line_comment: str = "//"
    mix_percent: float = 0.0


LANGUAGES: tuple[Language, ...] = (
    Language("Python", (".py", ".pyi", ".pyx"), ("SConstruct", "wscript"), ("python",), "#", 12.3),
    Language("Java", (".java",), mix_percent=15.9),
    Language(
        "C++",
        (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".inl", ".cu", ".cuh"),
        mix_percent=8.7,
    ),
    Language("C", (".c", ".h"), mix_percent=10.1),
    Language(
        "JavaScript", (".js", ".mjs", ".cjs", ".jsx"), interpreters=("node",), mix_percent=13.2
    ),
    Language("PHP", (".php", ".phtml"), interpreters=("php",), mix_percent=10.9),
    Language("C#", (".cs",), mix_percent=7.3),
    Language("Go", (".go",), mix_percent=4.3),
    Language("TypeScript", (".ts", ".tsx", ".mts", ".cts"), mix_percent=5.6),
    Language("SQL", (".sql",), line_comment="--", mix_percent=1.8),
    Language("Ruby", (".rb", ".rake", ".gemspec"), ("Rakefile", "Gemfile"), ("ruby",), "#", 1.5),
    Language("Rust", (".rs",), mix_percent=1.5),
    Language("Jupyter Notebook", (".ipynb",), line_comment="#", mix_percent=3.2),
    Language("Scala", (".scala", ".sc"), mix_percent=0.94),
    Language("Kotlin", (".kt", ".kts"), mix_percent=1.2),
    Language("Shell", (".sh", ".bash", ".zsh"), (".bashrc",), ("sh", "bash", "zsh"), "#", 0.81),
    Language("Dart", (".dart",), mix_percent=0.65),
    Language("Swift", (".swift",), mix_percent=0.9),
)

BY_NAME: dict[str, Language] = {language.name: language for language in LANGUAGES}

_BY_EXTENSION = {e: language for language in LANGUAGES for e in language.extensions}
_BY_FILENAME = {f: language for language in LANGUAGES for f in language.filenames}
_BY_INTERPRETER = {i: language for language in LANGUAGES for i in language.interpreters}
_SHEBANG = re.compile(r"#!\s*\S*?([a-z]+)[\d.]*(?:\s+([a-z]+)[\d.]*)?\s*(?:-.*)?$")
# C++ keywords and headers that C does not have: a `.h` with one of them is C++.
_CPP_MARKER = re.compile(
    r"^\s*(?:class\s+\w|namespace\s+\w|template\s*<|using\s+namespace|public:|private:"
    r"|#\s*include\s*<(?:string|vector|map|memory|iostream|utility|cstdint|type_traits)>)",
    re.MULTILINE,
)


def detect(path: str, head: str = "") -> str | None:
    """The language of a file, or None where it is none of the 18.

    Args:
      path: any path; only its last part is looked at.
      head: the first few thousand characters, for shebangs and for `.h` files.
    """
    filename = os.path.basename(path)
    extension = os.path.splitext(filename)[1].lower()
    language = _BY_FILENAME.get(filename) or _BY_EXTENSION.get(extension)
    if language is None:
        return _by_shebang(head) if not extension else None
    if extension == ".h" and _CPP_MARKER.search(head):
        return "C++"
    return language.name


def _by_shebang(head: str) -> str | None:
    first_line = head.split("\n", 1)[0]
    match = _SHEBANG.match(first_line)
    if match is None:
        return None
    for word in (match.group(2), match.group(1)):
        if word in _BY_INTERPRETER:
            return _BY_INTERPRETER[word].name
    return None

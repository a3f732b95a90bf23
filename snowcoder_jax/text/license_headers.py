"""The licence that the header of a single file states: SPDX tags, else the usual notices.

A notice counts only in the comments before the first line of code, so that a program that holds
such texts as strings is not taken to be under them. The wording of the notices is that of the
licences' own appendices ("How to apply ..."); identifiers follow the SPDX licence list.
"""

from __future__ import annotations

import functools
import re

import ahocorasick_rs

from snowcoder_jax.text import license_names, license_notices

HEAD_CHARACTERS = 4_000

# One of these is in every header that is understood below. Leftmost search has a vectorised path.
_HINTS = ahocorasick_rs.BytesAhoCorasick(
    [b"icense", b"icence", b"LICENSE", b"LICENCE", b"ermission to", b"ermission is",
     b"edistribution and", b"ublic domain", b"PUBLIC DOMAIN", b"onfidential", b"CONFIDENTIAL"],
    ahocorasick_rs.MatchKind.LeftmostFirst,
)  # fmt: skip

_TAG = re.compile(r"^[^\"'`=\n]{0,80}?SPDX-License-Identifier:[ \t]*([^\n]+)", re.MULTILINE)
_EXPRESSION = re.compile(r"[A-Za-z0-9.+:() /-]+")
_PYTHON_NAME = re.compile(r"^__licen[sc]e__[ \t]*=[ \t]*[\"']([^\"'\n]{1,80})[\"']", re.MULTILINE)
_FIELD = re.compile(r"^\W*(?:@licen[sc]e:?|licen[sc]e:)[ \t]+([^\n]{1,80})", re.MULTILINE | re.I)

# Comments before the first line of code, in any of the languages; a block may be cut at the end.
_LEADING_COMMENTS = re.compile(
    r"""(?>\s+
      | \#[^\n]* | //[^\n]* | --(?!\[\[)[^\n]* | ;[^\n]* | %[^\n]* | \.\.\s[^\n]*
      | /\*(?>(?:(?!\*/).)*)(?:\*/)? | \(\*(?>(?:(?!\*\)).)*)(?:\*\))?
      | <!--(?>(?:(?!-->).)*)(?:-->)? | \{-(?>(?:(?!-\}).)*)(?:-\})?
      | --\[\[(?>(?:(?!\]\]).)*)(?:\]\])?
      | [rRuU]?\"\"\"(?>(?:(?!\"\"\").)*)(?:\"\"\")? | [rRuU]?'''(?>(?:(?!''').)*)(?:''')?
      | =begin(?>(?:(?!=end).)*)(?:=end)?
      | ["']use\ strict["'];? | <\?(?:php|xml[^>]*>)? | <!DOCTYPE[^>]*> | \ufeff
      | (?:package|namespace|library)\ [\w.\\]+;? | declare\(strict_types=1\);
      | (?i:rem|@echo|dnl)\ [^\n]*
    )*+""",
    re.VERBOSE | re.DOTALL,
)
# The comments of a notebook's cells, which are strings of its JSON.
_CELL_LINE = re.compile(r"\"((?:#|//|<!--)(?:[^\"\\\n]|\\.)*)\"")


def from_header(text: str) -> str:
    """The SPDX expression that a file's header states, "" if none.

    Tags (`SPDX-License-Identifier:`, any comment style) go before notices; several of either hold
    together, unless a notice words them as a choice. What a tag says is kept even where it is no
    SPDX expression, which no policy takes for permissive. About a microsecond for a file that
    names no licence.

    Args:
      text: raw; its first `HEAD_CHARACTERS` characters are read.
    """
    head = text[:HEAD_CHARACTERS]
    if not _has_hint(head):
        return ""
    if head.lstrip()[:1] == "{":
        head = "\n".join(_CELL_LINE.findall(head)).replace("\\n", "\n").replace('\\"', '"')
    if "SPDX-License-Identifier:" in head and (tags := _TAG.findall(head)):
        stated = [_expression(tag) for tag in tags]
        return license_notices.joined([expression for expression in stated if expression], " AND ")
    match = _LEADING_COMMENTS.match(head)
    assert match is not None
    if (found := _from_comments(match.group())) or "icen" not in head:
        return found
    named = _PYTHON_NAME.search(head)
    return license_names.from_name(named.group(1)) if named else ""


def _has_hint(text: str) -> bool:
    return bool(_HINTS.find_matches_as_indexes(text.encode("utf-8", "surrogatepass")))


def _expression(tag: str) -> str:
    match = _EXPRESSION.match(tag)
    stated = match.group().removesuffix("--").strip(" /:-") if match else ""
    # A bracket may close what the tag itself did not open: `(* ... *)`.
    stated = stated.rstrip(") ") if stated.count(")") > stated.count("(") else stated
    return license_names.from_name(stated) or stated


@functools.lru_cache(maxsize=1024)  # the files of a repository repeat one header
def _from_comments(comments: str) -> str:
    if not _has_hint(comments):
        return ""
    if found := license_notices.stated(license_notices.fold(comments)):
        return found
    fields = [license_names.from_name(f.strip(" */-.")) for f in _FIELD.findall(comments)]
    return license_notices.joined([field for field in fields if field], " AND ")

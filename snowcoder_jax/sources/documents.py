"""What a source gives: documents, and rows of the ledger for what could not become one."""

from __future__ import annotations

import re
from dataclasses import dataclass

from snowcoder_jax import languages
from snowcoder_jax.sources import text as texts
from snowcoder_jax.text import license_headers

MAX_PATH_BYTES = 1_024
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """A file that did not become a document, and why (`reason` is a short fixed word).

    A folder that was not entered has one row, with a slash at the end of its `path`; a repository
    that was not, one with an empty `path`.
    """

    repo: str
    path: str
    reason: str
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SourceDocument:
    """A file with all that a document needs.

    Attributes:
      repo, path: `path` has forward slashes.
      license: SPDX expression, "" where unknown.
      stars: of the repository, None where unknown.
      content: valid UTF-8.
    """

    repo: str
    path: str
    language: str
    license: str
    stars: int | None
    content: bytes


# None is a file in none of the 18 languages.
Item = SourceDocument | LedgerRow | None


def judge(
    repo: str,
    path: str,
    data: bytes | str | None,
    max_file_bytes: int,
    *,
    license_id: str,
    stars: int | None = None,
    size_bytes: int = 0,
    encoding: str | None = None,
) -> Item:
    """A document, a row of the ledger, or None, of what was read of a file; never an exception.

    Args:
      data: at most `max_file_bytes + 1` bytes of it, or its text; None where it cannot be read.
      license_id: inherited; what the file's own header says goes before it.
      size_bytes: as the source states it, for the ledger.
      encoding: as the source states it.
    """
    if data is None:
        return LedgerRow(repo, path, "unreadable", size_bytes)
    if len(data) > max_file_bytes:
        is_code = languages.has_known_name(path)
        size_bytes = max(len(data), size_bytes)
        return LedgerRow(repo, path, "too_large", size_bytes) if is_code else None
    if data[:2] not in ("#!", b"#!") and not languages.has_known_name(path):
        return None
    try:
        text = (
            data.removeprefix("\ufeff") if isinstance(data, str) else texts.decode(data, encoding)
        )
        if "\0" in text:
            return LedgerRow(repo, path, "binary", len(data))
        content = text.encode()
    except texts.NotTextError as e:
        return LedgerRow(repo, path, str(e), len(data))
    except UnicodeEncodeError:
        return LedgerRow(repo, path, "undecodable", len(data))
    if len(content) > max_file_bytes:
        return LedgerRow(repo, path, "too_large", len(content))
    language = languages.detect(path, text)
    if language is None:
        return None
    license_id = license_headers.from_header(text) or license_id
    return SourceDocument(repo, path, language, license_id, stars, content)


def printable(name: str) -> str:
    """A name as valid text: bytes of it that are not UTF-8 appear escaped."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair, as JSON may have it
        return name.encode("utf-8", "backslashreplace").decode()


def is_safe_name(name: str) -> bool:
    """Whether a name from outside is of a fair length and without control characters."""
    return (
        len(name) <= MAX_PATH_BYTES
        and len(name.encode("utf-8", "surrogateescape")) <= MAX_PATH_BYTES
        and _CONTROL.search(name) is None
    )


def safe_path(name: str) -> str:
    """A path from outside as one inside a repository, its empty parts taken out; "" where it is
    none, as it would lead out of it."""
    parts = name.replace("\\", "/").split("/") if is_safe_name(name) else [""]
    is_safe = not name.startswith(("/", "\\")) and ".." not in parts and ":" not in parts[0]
    return "/".join(p for p in parts if p not in ("", ".")) if is_safe else ""

"""Licences as a repository states them: licence files and package metadata, in any folder.

The nearest folder at or above a file that has either decides, its licence files before its
metadata. Several licence files side by side hold together, since which of them covers what is not
known; with one whose text is not recognised, and no metadata beside it, the licence is unknown.
"""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Iterable, Mapping

from snowcoder_jax.text import license_names

MAX_BYTES = 100_000
# The folder in which a repository after the REUSE specification keeps the texts of its licences.
REUSE_FOLDER = "LICENSES"

_NAME = re.compile(r"(?:(?:un)?licen[sc]e|copying|mit-licen[sc]e)(?:[-._][\w.+-]*)?", re.IGNORECASE)
# Not the licence of the files around it, or not a text at all.
_OTHER = re.compile(
    r"third|3rd|bundle|vendor|header|template|notice|exception|check|report"
    r"|\.(?:json|ya?ml|xml|csv|toml|lock|html?|[ch]|py|rb|go|js|ts|java|cs|cpp|php|rs|sh|tmpl|in)$",
    re.IGNORECASE,
)
_EXPRESSION = re.compile(r"[A-Za-z0-9.+() -]+")
_GEMSPEC = re.compile(r"\.licenses?\s*=\s*\[?\s*[\"']([^\"'\n]+)[\"']")

METADATA_FILES = ("package.json", "Cargo.toml", "pyproject.toml", "setup.cfg", "composer.json")


def is_license_file(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and _OTHER.search(name) is None


def is_metadata_file(name: str) -> bool:
    return name in METADATA_FILES or name.endswith(".gemspec")


def from_files(texts: Iterable[str]) -> str:
    """The licences of a folder's licence files together; "" where one is not recognised."""
    found = {license_names.from_text(text) for text in texts}
    return "" if "" in found else " AND ".join(sorted(found))


def from_metadata(texts: Mapping[str, str]) -> str:
    """The licence that package metadata states, by the order of `METADATA_FILES`; "" if none.

    Args:
      texts: file name -> text, of the metadata files of a folder.
    """
    for name in [*METADATA_FILES, *sorted(n for n in texts if n.endswith(".gemspec"))]:
        if name in texts and (found := _from_package(name, texts[name])):
            return found
    return ""


def _from_package(name: str, text: str) -> str:
    try:
        if name.endswith(".gemspec"):
            return " AND ".join(dict.fromkeys(filter(None, map(_spdx, _GEMSPEC.findall(text)))))
        if name == "setup.cfg":
            parser = configparser.ConfigParser(interpolation=None, strict=False)
            parser.read_string(text)
            return _spdx(parser.get("metadata", "license", fallback=None))
        data = json.loads(text) if name.endswith(".json") else tomllib.loads(text)
    except (ValueError, RecursionError, configparser.Error):
        return ""
    if name == "Cargo.toml":
        return _spdx(_field(data, "package", "license"))
    if name == "pyproject.toml":
        stated = _field(data, "project", "license") or _field(data, "tool", "poetry", "license")
        return _spdx(_field(stated, "text") if isinstance(stated, dict) else stated)
    stated = _field(data, "license")
    if isinstance(stated, list):  # composer's way of a choice
        known = list(map(_spdx, stated))
        return " OR ".join(known) if known and all(known) else ""
    return _spdx(_field(stated, "type") if isinstance(stated, dict) else stated)


def _field(data: object, *names: str) -> object:
    for name in names:
        data = data.get(name) if isinstance(data, dict) else None
    return data


def _spdx(stated: object) -> str:
    """A stated licence as an SPDX expression: what is not known by name stays as it is written."""
    if not isinstance(stated, str) or len(stated) > license_names.MAX_NAME_CHARACTERS:
        return ""
    # Cargo's old way of a choice is a slash; npm names a file in words.
    stated = stated.strip().replace("/", " OR ")
    if stated.upper().startswith("SEE LICENSE"):
        return ""
    known = license_names.from_name(stated)
    return known or (stated if _EXPRESSION.fullmatch(stated) else "")

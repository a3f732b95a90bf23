"""Licences as people write them -> SPDX identifiers: package metadata and licence files.

An answer of "" means unknown, which no policy takes for permissive. Identifiers follow the SPDX
licence list; classifiers follow PyPI's list.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from snowcoder_jax.text import license_notices
from snowcoder_jax.text.licenses import COMMONS_CLAUSE, PERMISSIVE

_CLASSIFIERS = {
    "Academic Free License (AFL)": "AFL-3.0",
    "Apache Software License": "Apache-2.0",
    "Artistic License": "Artistic-2.0",
    "BSD License": "BSD-3-Clause",
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU General Public License (GPL)": "GPL-2.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "GNU Library or Lesser General Public License (LGPL)": "LGPL-2.1-or-later",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "Zope Public License": "ZPL-2.1",
    "zlib/libpng License": "Zlib",
}

_NAMES = {
    "0bsd": "0BSD",
    "3-clause bsd": "BSD-3-Clause",
    "afl-2.1": "AFL-2.1",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache v2": "Apache-2.0",
    "apache-2": "Apache-2.0",
    "apache-2.0": "Apache-2.0",
    "apache version 2.0": "Apache-2.0",
    "apache software": "Apache-2.0",
    "apache software 2.0": "Apache-2.0",
    "bsd": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd-2-clause": "BSD-2-Clause",
    "bsd-3-clause": "BSD-3-Clause",
    "2-clause bsd": "BSD-2-Clause",
    "cc0-1.0": "CC0-1.0",
    "isc": "ISC",
    "mit": "MIT",
    "mit-0": "MIT-0",
    "expat": "MIT",
    "mpl 2.0": "MPL-2.0",
    "mpl-2.0": "MPL-2.0",
    "modified bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "psf": "PSF-2.0",
    "psf-2.0": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "simplified bsd": "BSD-2-Clause",
    "unlicense": "Unlicense",
    "zlib": "Zlib",
    "zpl 2.1": "ZPL-2.1",
}

_IDENTIFIERS = {identifier.lower(): identifier for identifier in PERMISSIVE}
_NOISE = re.compile(r"\b(?:the|licen[sc]e|licensed|version|clause licen[sc]e)\b|[,()\"']")
_OPERATORS = re.compile(r"\s+(OR|AND|WITH)\s+")


# A longer `License` field is the whole text of one.
MAX_NAME_CHARACTERS = 200
PREAMBLE_CHARACTERS = 1_000  # of a licence file: as long as the shortest licences


def from_text(text: str) -> str:
    """The licence that a licence file's text is or names, or "".

    What its beginning names holds, all of it or as the choice that it offers ("either of ...").
    Where it names nothing the first licence of the text counts: many go on to name others, or hold
    those of code they are bundled with. A clause that takes permissions back counts anywhere.
    """
    folded = license_notices.fold(text)
    names = [name for _, name in license_notices.find(folded)]
    beginning = license_notices.stated(folded, PREAMBLE_CHARACTERS)
    expressions = [beginning] if beginning else names[:1]
    expressions += [name for name in names if name == COMMONS_CLAUSE]
    return license_notices.joined(expressions, " AND ")


def from_name(name: str) -> str:
    """The SPDX identifier of a short free-text licence name ("Apache 2.0 License"), or ""."""
    if _OPERATORS.search(name):
        parts = _OPERATORS.split(name)
        known = [p if i % 2 else from_name(p) for i, p in enumerate(parts)]
        return " ".join(known) if all(known) else ""
    folded = " ".join(_NOISE.sub(" ", name.lower()).split())
    return _NAMES.get(folded) or _IDENTIFIERS.get(name.strip().lower(), "")


def from_metadata(expression: str | None, text: str | None, classifiers: Sequence[str]) -> str:
    """The licence of a distribution from its core metadata.

    Args:
      expression: `License-Expression` (PEP 639), taken as it stands.
      text: `License`: a name or a whole licence text.
      classifiers: all classifiers; several licences are read as a conjunction, since metadata
        does not say which it is.
    """
    if expression:
        return expression.strip()
    if text and len(text) <= MAX_NAME_CHARACTERS and (found := from_name(text)):
        return found
    known = sorted(
        {
            _CLASSIFIERS.get(c.rsplit(" :: ", 1)[-1], "")
            for c in classifiers
            if c.startswith("License ::") and c.count(" :: ") > 1
        }
    )
    if known and all(known):
        return " AND ".join(known)
    # Last, since a whole text often goes on to quote the licences of code bundled in a wheel.
    return from_text(text) if text else ""

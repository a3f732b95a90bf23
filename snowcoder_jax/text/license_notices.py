"""Licences by the words of their texts and of the notices that point to them.

All texts are folded first: small letters, and words parted by single spaces. The wording is that
of the licences themselves and of their appendices ("How to apply ..."); identifiers follow the
SPDX licence list.
"""

from __future__ import annotations

import re

from snowcoder_jax.text.licenses import COMMONS_CLAUSE, PROPRIETARY, PUBLIC_DOMAIN

_NOT_A_WORD = re.compile(r"[^a-z0-9.+]+")

# In the wordings below: {under} points to a licence, {v} stands between its name and version.
_UNDER = r"(?:under|by|of) (?:the )?(?:terms (?:and conditions )?of )?(?:either )?(?:the |an? )?"
_V = r"(?:\.? (?:v\.? ?|version )?)"
_LLVM = "Apache-2.0 WITH LLVM-exception"
_SAME_NAME_CHARACTERS = 40  # "under the apache license v2.0 with llvm exceptions" is one name

# The licence, a word that must occur (to look for it is fast), and a wording.
_TABLE = (
    (_LLVM, "llvm", r"apache license{v}2(?:\.0)?\b.{0,20} with llvm exception"),
    ("Apache-2.0", "apache", r"apache(?: software| public)? license{v}2(?:\.0)?\b"),
    ("Apache-2.0", "apache", r"{under}apache(?: software)?(?: license(?!{v}1)| 2| v2)"),
    ("Apache-2.0", "apache", r"\bapache 2(?:\.0)? license|\blicense[. ]apache2?\b"),
    ("Apache-1.1", "apache", r"apache software license{v}1\.1"),
    (
        "MIT",
        "hereby granted free",
        r"permission is hereby granted free of charge.{0,800}the above copyright notice and",
    ),
    ("MIT", "mit", r"\bmit licensed?\b|\blicense[. ]mit\b|{under}mit(?: style| x11)? license"),
    ("MIT", "mit", r"{under}mit(?: open source license| and | or |\.|$)"),
    ("MIT", "expat", r"\bexpat license|{under}expat\b"),
    (
        "MIT-0",
        "hereby granted free",
        r"permission is hereby granted free of charge(?!.{0,900}the above copyright notice"
        r"|.{0,900}redistributions of).{0,600}without restriction",
    ),
    ("NCSA", "illinois", r"university of illinois ncsa"),
    ("NCSA", "deal with", r"deal with the software without restriction.{0,500}redistributions of"),
    ("BSD-2-Clause", "bsd", r"{under}(?:simplified bsd|freebsd license|2 clause bsd)"),
    ("BSD-2-Clause", "bsd", r"\bbsd 2 clause\b|{under}two clause bsd"),
    (
        "BSD-3-Clause",
        "bsd",
        r"{under}(?:(?:new|modified|revised|3 clause) )?bsd(?: style)? license",
    ),
    ("BSD-3-Clause", "bsd", r"\bbsd 3 clause\b|{under}three clause bsd|\blicense[. ]bsd\b"),
    ("ISC", "isc", r"\bisc license\b"),
    (
        "ISC",
        "permission to use",
        r"permission to use copy modify and( or)? distribute this software for any purpose with"
        r"(?: or without)? fee is hereby granted provided",
    ),
    (
        "0BSD",
        "permission to use",
        r"permission to use copy modify and( or)? distribute this software for any purpose with or"
        r" without fee is hereby granted\.",
    ),
    ("0BSD", "zero clause", r"\bzero clause bsd\b|\bbsd zero clause\b"),
    (
        "PostgreSQL",
        "written agreement",
        r"purpose(?: and)? without fee and without a written agreem",
    ),
    ("HPND", "and without fee", r"and its documentation for any purpose and without fee is hereby"),
    ("HPND-sell-variant", "and sell this", r"and sell this software and its documentation for any"),
    ("Zlib", "altered source", r"altered source versions must be plainly marked"),
    ("BSL-1.0", "boost", r"boost software license"),
    ("PSF-2.0", "python", r"python software foundation license"),
    ("PSF-2.0", "psf", r"licensed to psf under a contributor agreement"),
    ("UPL-1.0", "universal perm", r"universal permissive license"),
    ("BlueOak-1.0.0", "blue oak", r"blue oak model license"),
    ("CC0-1.0", "cc0", r"\bcc0(?: 1\.0| universal| public)"),
    ("CC0-1.0", "zero", r"creative commons zero|publicdomain zero 1\.0"),
    (
        "Unlicense",
        "unencumbered",
        r"this is free and unencumbered software released into the public",
    ),
    ("Unlicense", "unlicense", r"\bthe unlicense\b"),
    (
        PUBLIC_DOMAIN,
        "public domain",
        r"(?:released|placed|dedicated|put|donated|contributed|given)(?: \w+){0,3} (?:in|into|to)"
        r" the public domain",
    ),
    (
        PUBLIC_DOMAIN,
        "public domain",
        r"this (?:file|code|software|program|work|source|module|script)(?: \w+){0,3} is"
        r" (?:hereby )?(?:in the )?public domain",
    ),
    ("WTFPL", "want to public", r"do what the fuck you want to public license"),
    ("WTFPL", "wtfpl", r"\bwtfpl\b"),
    ("Unicode-3.0", "unicode", r"unicode license v3"),
    ("Unicode-DFS-2016", "unicode", r"unicode inc\. license agreement data files"),
    ("PHP-3.01", "php", r"the php license version 3\.01"),
    (
        "OpenSSL",
        "openssl",
        r"redistributions of any form whatsoever must retain.{0,100}this product includes software"
        r" developed by the openssl",
    ),
    ("AFL-3.0", "academic free", r"academic free license{v}3"),
    ("Artistic-2.0", "artistic", r"artistic license{v}2"),
    ("Artistic-1.0", "artistic", r"the artistic license preamble"),
    ("MS-PL", "microsoft", r"microsoft public license"),
    ("MS-PL", "ms pl", r"\bms pl\b"),
    ("MS-RL", "microsoft", r"microsoft reciprocal license"),
    ("JSON", "not evil", r"the software shall be used for good not evil"),
    ("MPL-2.0", "mozilla", r"mozilla public license{v}2"),
    ("MPL-2.0", "mpl", r"\bmpl ?v?2\.0\b"),
    ("MPL-1.1", "mozilla", r"mozilla public license{v}1\.1"),
    ("MPL-1.1", "mpl", r"\bmpl ?v?1\.1\b"),
    ("EPL-2.0", "eclipse", r"eclipse public license{v}2"),
    ("EPL-1.0", "eclipse", r"eclipse public license{v}1"),
    ("BSD-3-Clause", "eclipse", r"eclipse distribution license"),
    ("CPL-1.0", "common public", r"common public license"),
    ("CDDL-1.1", "common dev", r"common development and distribution license.{0,12}{v}1\.1"),
    ("CDDL-1.0", "common dev", r"common development and distribution license(?!.{0,12}{v}1\.1)"),
    ("OSL-3.0", "open software", r"open software license{v}3"),
    ("EUPL-1.2", "european union", r"european union public license{v}1\.2"),
    ("EUPL-1.1", "european union", r"european union public license{v}1\.1"),
    ("CECILL-2.1", "cecill", r"cecill free software license"),
    ("OFL-1.1", "open font", r"sil open font license"),
    ("GFDL-1.3-or-later", "free doc", r"gnu free documentation license"),
    ("BUSL-1.1", "business source", r"business source license"),
    ("SSPL-1.0", "server side", r"server side public license"),
    ("Elastic-2.0", "elastic", r"\belastic license"),
    ("PolyForm-Noncommercial-1.0.0", "polyform", r"polyform noncommercial"),
    ("FSL-1.1-MIT", "functional source", r"functional source license"),
    (COMMONS_CLAUSE, "commons clause", r"commons clause (?:license condition|restriction)"),
    (PROPRIETARY, "proprietary", r"proprietary and confidential|confidential and proprietary"),
    (PROPRIETARY, "confidential", r"unauthori[sz]ed copying of this file"),
)
_WORDINGS = tuple(
    (identifier, word, re.compile(wording.replace("{v}", _V).replace("{under}", _UNDER)))
    for identifier, word, wording in _TABLE
)

_BSD = "redistribution and use in source and binary forms"
_BSD_CHARACTERS = 1_800  # of its text
_CREATIVE_COMMONS = re.compile(
    r"(?:creative commons|\bcc) (?:attribution|by)( non ?commercial| nc)?"
    r"( share ?alike| sa| no ?deriv(?:ative)?s?(?: works)?| nd)?(?: license)?(?: v?(\d\.\d))?"
)
_GNU = re.compile(
    r"gnu (?:(lesser|library|affero) )?general public license|gnu (?:(l|a)?gpl)\b"
    r"|(?:licensed under|\bmit (?:and|or)) (?:the )?(?:terms of )?(?:the )?((?:l|a)?gpl)\b"
)
_GNU_NAMES = {"affero": "AGPL", "a": "AGPL", "agpl": "AGPL", "lesser": "LGPL", "library": "LGPL",
              "l": "LGPL", "lgpl": "LGPL"}  # fmt: skip
_GNU_VERSION = re.compile(r"\b(?:version |v\.? ?)?(?<![\d.])(3|2\.1|2|1)(?:\.0)?\+?(?=[ .]|$)")
_LATER = re.compile(
    r"or (?:at your option )?(?:any )?(?:later|newer|higher) version|or later\b"
    r"|\b[123](?:\.[01])?\+"
)
_GNU_CHARACTERS = 240  # of a notice in which the version stands
_FIXED = (
    ("version mpl 1.1 gpl 2.0 lgpl 2.1", "MPL-1.1 OR GPL-2.0-or-later OR LGPL-2.1-or-later"),
    ("under the same terms as perl itself", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
)
_CHOICE = re.compile(
    r"\bdual(?:ly)? licen|at your option(?! any)|\beither of\b|under either|terms of either"
    r"|\balternatively\b|\bmit (?:or|and) (?:the )?(?:gnu )?gpl|\bmay choose\b"
    r"|license (?:\S+ ){0,8}or (?:under )?(?:the )?(?:mit|gnu|apache|bsd|server side)"
)


def fold(text: str) -> str:
    """Small letters and digits; all between words is one space, and a licence is a license."""
    return " ".join(_NOT_A_WORD.sub(" ", text.lower()).replace("licence", "license").split())


def find(folded: str) -> list[tuple[int, str]]:
    """Place and identifier of every licence that a folded text names or is, in order."""
    places: dict[str, int] = {}
    for name, word, pattern in _WORDINGS:
        if word in folded and (match := pattern.search(folded)):
            places[name] = min(match.start(), places.get(name, match.start()))
    for start, name in [*_bsd(folded), *_gnu(folded), *_creative_commons(folded)]:
        places[name] = min(start, places.get(name, start))
    if _LLVM in places and places[_LLVM] < places["Apache-2.0"] + _SAME_NAME_CHARACTERS:
        del places["Apache-2.0"]
    return sorted((start, name) for name, start in places.items())


def stated(folded: str, num_characters: int | None = None) -> str:
    """The SPDX expression of a notice: all that it names, or a choice if it is worded so.

    Args:
      folded: the text.
      num_characters: of its beginning, in which a name must begin to count; None for all.
    """
    beginning = folded[:num_characters]
    for words, expression in _FIXED:
        if words in beginning:
            return expression
    names = [name for start, name in find(folded) if start < len(beginning)]
    return joined(names, " OR " if _CHOICE.search(beginning) else " AND ")


def joined(expressions: list[str], operator: str) -> str:
    """Distinct expressions in order, bracketed where they are compound themselves."""
    distinct = list(dict.fromkeys(expressions))
    if len(distinct) == 1:
        return distinct[0]
    return operator.join(f"({e})" if " OR " in e or " AND " in e else e for e in distinct)


def _bsd(folded: str) -> list[tuple[int, str]]:
    start = folded.find(_BSD)
    if start < 0:
        return []
    text = folded[start : start + _BSD_CHARACTERS]
    if "all advertising materials" in text:
        return [(start, "BSD-4-Clause")]
    if "neither the name" in text or "prior written permission" in text:
        is_clear = "no express or implied licenses to any party s patent" in text
        return [(start, "BSD-3-Clause-Clear" if is_clear else "BSD-3-Clause")]
    has_binary = "redistributions in binary form" in text
    return [(start, "BSD-2-Clause" if has_binary else "BSD-1-Clause")]


def _creative_commons(folded: str) -> list[tuple[int, str]]:
    match = _CREATIVE_COMMONS.search(folded) if "cc " in folded or "creative" in folded else None
    if match is None:
        return []
    commercial, share, version = match.groups()
    name = "CC-BY" + ("-NC" if commercial else "")
    name += "" if share is None else "-SA" if share.startswith((" sa", " share")) else "-ND"
    return [(match.start(), f"{name}-{version or '4.0'}")]


def _gnu(folded: str) -> list[tuple[int, str]]:
    """The first licence of the GNU family that is named; without a version any will do."""
    match = _GNU.search(folded) if "gnu" in folded or "gpl" in folded else None
    if match is None:
        return []
    prefix = _GNU_NAMES.get(next(filter(None, match.groups()), ""), "GPL")
    # "version 2 of the GNU ..." and "the GNU ... version 2" are both usual.
    after = folded[match.end() : match.end() + _GNU_CHARACTERS]
    around = folded[max(0, match.start() - 40) : match.end()] + after
    version = _GNU_VERSION.search(after) or _GNU_VERSION.search(around)
    if version is None:
        earliest = {"GPL": "1.0", "LGPL": "2.0", "AGPL": "3.0"}[prefix]
        return [(match.start(), f"{prefix}-{earliest}-or-later")]
    number = version.group(1) if "." in version.group(1) else f"{version.group(1)}.0"
    suffix = "or-later" if _LATER.search(around) else "only"
    return [(match.start(), f"{prefix}-{number}-{suffix}")]

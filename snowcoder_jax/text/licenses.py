"""Licences: which SPDX expressions are permissive.

The list is the Blue Oak Council's list of permissive licences (version 15, all its levels), as The
Stack took it, with the few of the SPDX licence list that ScanCode files under "Permissive" or
"Public Domain" and that code is met under.
"""

from __future__ import annotations

import re

# Code of the user's own that states no licence.
NAMED_BY_USER = "LicenseRef-named-by-user"
# What a header says in words, without naming a licence.
PUBLIC_DOMAIN = "LicenseRef-public-domain"
PROPRIETARY = "LicenseRef-proprietary"
# Takes from the licence beside it the right to sell.
COMMONS_CLAUSE = "LicenseRef-Commons-Clause"

_BLUE_OAK = """
BlueOak-1.0.0
BSD-2-Clause-Patent
ADSL Apache-2.0 APAFML BSD-1-Clause BSD-2-Clause BSD-2-Clause-FreeBSD BSD-2-Clause-NetBSD
BSD-2-Clause-Views BSL-1.0 DSDP ECL-1.0 ECL-2.0 hdparm ImageMagick Intel-ACPI ISC Linux-OpenIB MIT
MIT-Modern-Variant MIT-testregex MIT-Wu MS-PL MulanPSL-1.0 Mup PostgreSQL SHL-0.5 Spencer-99
UPL-1.0 Xerox Xfig
0BSD AFL-1.1 AFL-1.2 AFL-2.0 AFL-2.1 AFL-3.0 AMDPLPA AML AMPAS ANTLR-PD ANTLR-PD-fallback Apache-1.0
Apache-1.1 Artistic-2.0 Bahyph Barr bcrypt-Solar-Designer BSD-3-Clause BSD-3-Clause-Attribution
BSD-3-Clause-Clear BSD-3-Clause-HP BSD-3-Clause-LBNL BSD-3-Clause-Modification
BSD-3-Clause-No-Nuclear-License-2014 BSD-3-Clause-No-Nuclear-Warranty BSD-3-Clause-Open-MPI
BSD-3-Clause-Sun BSD-4-Clause BSD-4-Clause-Shortened BSD-4-Clause-UC BSD-Source-Code bzip2-1.0.5
bzip2-1.0.6 CC0-1.0 CFITSIO Clips CNRI-Jython CNRI-Python CNRI-Python-GPL-Compatible Cube curl
eGenix Entessa FTL fwlw HPND-Fenneberg-Livingston HPND-sell-regexpr HTMLTIDY IBM-pibs ICU Info-ZIP
Intel JasPer-2.0 Libpng libpng-2.0 libtiff LPPL-1.3c LZMA-SDK-9.22 MIT-0 MIT-advertising MIT-CMU
MIT-enna MIT-feh MIT-open-group MITNFA MTLL MulanPSL-2.0 Multics Naumen NCSA Net-SNMP NetCDF
NICTA-1.0 NIST-Software NTP OGL-Canada-2.0 OLDAP-2.0 OLDAP-2.0.1 OLDAP-2.1 OLDAP-2.2 OLDAP-2.2.1
OLDAP-2.2.2 OLDAP-2.3 OLDAP-2.4 OLDAP-2.5 OLDAP-2.6 OLDAP-2.7 OLDAP-2.8 OML OpenSSL PHP-3.0 PHP-3.01
Plexus PSF-2.0 Python-2.0 Ruby Saxpath SGI-B-2.0 SMLNJ SunPro SWL Symlinks TCL TCP-wrappers UCAR
Unicode-DFS-2015 Unicode-DFS-2016 UnixCrypt Unlicense VSL-1.0 W3C X11 XFree86-1.1 xlock Xnet xpp
Zlib zlib-acknowledgement ZPL-2.0 ZPL-2.1
AAL Adobe-2006 Afmparse Artistic-1.0 Artistic-1.0-cl8 Artistic-1.0-Perl Beerware blessing Borceux
BSD-2-Clause-Darwin CECILL-B check-cvs ClArtistic Condor-1.1 Crossword CrystalStacker diffmark DOC
EFL-1.0 EFL-2.0 Fair FSFAP FSFUL FSFULLR Giftware GLWTPL HPND HPND-export-US IJG IJG-short Jam
Kazlib Leptonica LPL-1.0 LPL-1.02 McPhee-slideshow MirOS mpich2 NAIST-2003 NASA-1.3 NBPL-1.0
Newsletr NLPL NRL NTP-0 OFFIS OGTSL OLDAP-1.1 OLDAP-1.2 OLDAP-1.3 OLDAP-1.4 psutils python-ldap
Qhull Rdisc RSA-MD snprintf Spencer-86 Spencer-94 SSH-short TU-Berlin-1.0 TU-Berlin-2.0 Vim
W3C-19980720 W3C-20150513 Wsuipa WTFPL xinetd XSkat Zed Zend-2.0 ZPL-1.1
"""  # a paragraph a level: model, gold, silver, bronze, lead
_SCANCODE = """
BSD-4.3RENO BSD-4.3TAHOE CC-BY-2.0 CC-BY-2.5 CC-BY-3.0 CC-BY-4.0 CC-PDDC CC-PDM-1.0
CDLA-Permissive-1.0 CDLA-Permissive-2.0 etalab-2.0 HPND-sell-variant MIT-Click MIT-Festival
Minpack NIST-PD NIST-PD-fallback PDDL-1.0 Python-2.0.1 SAX-PD SSH-OpenSSH Unicode-3.0
X11-distribute-modifications-variant
"""
# Names by which single permissive licences and families of them go outside SPDX.
_OTHERS = f"{NAMED_BY_USER} {PUBLIC_DOMAIN} BSD"

PERMISSIVE = tuple(f"{_BLUE_OAK} {_SCANCODE} {_OTHERS}".split())
_IS_PERMISSIVE = frozenset(identifier.lower() for identifier in PERMISSIVE)

MAX_EXPRESSION_CHARACTERS = 2_000
_TOKEN = re.compile(r"[()]|[^\s()]+")
_OPERATORS = {"AND": "&", "OR": "|", "(": "(", ")": ")"}
# Exceptions of the SPDX list add permissions. Others may take some back (`Commons-Clause`).
_EXCEPTION = re.compile(r"[\w.-]*exception[\w.-]*|Linux-syscall-note|SHL-2\.[01]", re.IGNORECASE)
_BRACKETS = re.compile(r"\(([TF])\)")
_AND = re.compile(r"([TF])&([TF])")
_OR = re.compile(r"(?<!&)([TF])\|([TF])(?!&)")  # binds less than AND


def is_permissive(expression: str | None) -> bool:
    """Whether an SPDX expression leaves a permissive choice; unknown ("" or None) does not.

    `A OR B` needs one of the two, `A AND B` both; `A WITH exception` and `A+` are judged by A.
    Letter case does not count. What is no expression is not permissive.
    """
    if not expression or len(expression) > MAX_EXPRESSION_CHARACTERS:
        return False
    formula = _formula(_TOKEN.findall(expression))
    before = ""
    while formula != before:
        before = formula
        formula = _BRACKETS.sub(r"\1", formula)
        formula = _AND.sub(lambda m: "T" if m.group() == "T&T" else "F", formula)
        formula = _OR.sub(lambda m: "T" if "T" in m.group() else "F", formula)
    return formula == "T"


def _formula(tokens: list[str]) -> str:
    """T for a permissive licence, F for another, & and | between them."""
    formula = ""
    with_next = False
    for token in tokens:
        if with_next:
            if not _EXCEPTION.fullmatch(token):
                formula += "F"  # two in a row: no expression
            with_next = False
        elif token.upper() == "WITH":
            with_next = formula[-1:] in ("T", "F")
            formula += "" if with_next else "?"
        elif token.upper() in _OPERATORS:
            formula += _OPERATORS[token.upper()]
        else:
            formula += "T" if token.lower().removesuffix("+") in _IS_PERMISSIVE else "F"
    return formula + "?" * with_next

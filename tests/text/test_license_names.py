"""Licences from metadata and from the text of licence files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text import license_names

OSI = "License :: OSI Approved :: "


@pytest.mark.parametrize(
    ("expression", "text", "classifiers", "expected"),
    [
        ("Apache-2.0 OR BSD-3-Clause", "MIT", [OSI + "MIT License"], "Apache-2.0 OR BSD-3-Clause"),
        (None, "MIT", [], "MIT"),
        (None, "The MIT License", [], "MIT"),
        (None, "Apache License, Version 2.0", [], "Apache-2.0"),
        (None, "Apache 2.0", [], "Apache-2.0"),
        (None, "3-Clause BSD License", [], "BSD-3-Clause"),
        (None, "MPL-2.0 AND MIT", [], "MPL-2.0 AND MIT"),
        (
            None,
            "Dual License",
            [OSI + "BSD License", OSI + "Apache Software License"],
            "Apache-2.0 AND BSD-3-Clause",
        ),
        (None, "", [OSI + "MIT License", "Programming Language :: Python"], "MIT"),
        (None, "", ["License :: OSI Approved", OSI + "MIT License"], "MIT"),
        (None, None, ["License :: Other/Proprietary License"], ""),
        (None, None, [OSI + "MIT License", OSI + "Some Unheard License"], ""),
        (None, "Ask the author", [], ""),
        (None, None, [], ""),
    ],
)
def test_metadata(
    expression: str | None, text: str | None, classifiers: list[str], expected: str
) -> None:
    assert license_names.from_metadata(expression, text, classifiers) == expected


MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this
software, to deal in the Software without restriction. The above copyright notice and this
permission notice shall be included in all copies."""
PADDING = "\n" + "Words of a licence. " * 60
GNU_AFFERO = "Use with the GNU Affero General Public License, Version 3"
PERMISSION = "Permission to use, copy, modify, and/or distribute this software for any purpose "
BSD = "Redistribution and use in source and binary forms, with or without modification. " * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "MIT"),
        (MIT.replace("\n", "\r\n   ").upper(), "MIT"),
        (BSD + "Redistributions in binary form must reproduce this.", "BSD-2-Clause"),
        (BSD + "may be used without specific prior written permission", "BSD-3-Clause"),
        ("Apache License\n  Version 2.0, January 2004", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n" + PADDING + MIT, "GPL-3.0-only"),
        ("GNU GENERAL PUBLIC LICENSE\nVersion 3\n" + PADDING + GNU_AFFERO, "GPL-3.0-only"),
        ("GNU LESSER GENERAL PUBLIC LICENSE\nVersion 2.1, February 1999", "LGPL-2.1-only"),
        ("GNU LIBRARY GENERAL PUBLIC LICENSE\nVersion 2, June 1991", "LGPL-2.0-only"),
        ("GNU AFFERO GENERAL PUBLIC LICENSE\nVersion 3", "AGPL-3.0-only"),
        ("Mozilla Public License Version 2.0\n" + PADDING + GNU_AFFERO, "MPL-2.0"),
        ("Eclipse Public License - v 1.0", "EPL-1.0"),
        ("COMMON DEVELOPMENT AND DISTRIBUTION LICENSE Version 1.0", "CDDL-1.0"),
        ("Microsoft Public License (Ms-PL)", "MS-PL"),
        ("The Artistic License 2.0\nCopyright (c) 2000-2006", "Artistic-2.0"),
        ("DO WHAT THE FUCK YOU WANT TO PUBLIC LICENSE", "WTFPL"),
        ("Creative Commons Attribution 4.0 International", "CC-BY-4.0"),
        ("Creative Commons Attribution-ShareAlike 3.0 Unported", "CC-BY-SA-3.0"),
        ("Creative Commons Attribution-NonCommercial-NoDerivatives 4.0", "CC-BY-NC-ND-4.0"),
        ("UNICODE LICENSE V3", "Unicode-3.0"),
        ("University of Illinois/NCSA Open Source License", "NCSA"),
        (BSD + "All advertising materials mentioning features", "BSD-4-Clause"),
        (PERMISSION + "with or without fee is hereby granted, provided that", "ISC"),
        (PERMISSION + "with or without fee is hereby granted.", "0BSD"),
        (
            "either of the licenses found in LICENSE.APACHE or LICENSE.BSD",
            "Apache-2.0 OR BSD-3-Clause",
        ),
        ("Released under the MIT license; files under MPL-2.0 are marked.", "MIT AND MPL-2.0"),
        ('"Commons Clause" License Condition v1.0\n' + PADDING + MIT, "LicenseRef-Commons-Clause"),
        (MIT + PADDING + '"Commons Clause" License Condition', "MIT AND LicenseRef-Commons-Clause"),
        ("All rights reserved.", ""),
        ("", ""),
    ],
)
def test_license_text(text: str, expected: str) -> None:
    assert license_names.from_text(text) == expected


@given(st.text())
def test_no_text_raises(text: str) -> None:
    license_names.from_text(text)
    license_names.from_name(text)
    license_names.from_metadata(None, text, [text])

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
BSD = "Redistribution and use in source and binary forms, with or without modification. " * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (MIT, "MIT"),
        (MIT.replace("\n", "\r\n   ").upper(), "MIT"),
        (BSD + "Redistributions in binary form must reproduce this.", "BSD-2-Clause"),
        (BSD + "may be used without specific prior written permission", "BSD-3-Clause"),
        ("Apache License\n  Version 2.0, January 2004", "Apache-2.0"),
        ("GNU GENERAL PUBLIC LICENSE\nVersion 3, 29 June 2007\n" + MIT, "GPL-3.0-only"),
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


def test_license_file_names() -> None:
    for name in ("LICENSE", "licence.txt", "LICENSE-MIT", "COPYING", "UNLICENSE"):
        assert license_names.is_license_file(name)
    for name in ("README", "relicense.py", "main.c"):
        assert not license_names.is_license_file(name)

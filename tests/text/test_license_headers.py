"""Licences that the headers of files state."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text.license_headers import HEAD_CHARACTERS, from_header

TAG = "SPDX-License-Identifier: "


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("# SPDX-License-Identifier: MIT\nx = 1\n", "MIT"),
        ("// SPDX-License-Identifier: MIT\r\nint x;\n", "MIT"),
        ("/* SPDX-License-Identifier: GPL-2.0 */\n", "GPL-2.0"),
        (" * SPDX-License-Identifier: (GPL-2.0 OR BSD-2-Clause)\n", "(GPL-2.0 OR BSD-2-Clause)"),
        ("-- SPDX-License-Identifier: Apache-2.0\nSELECT 1;\n", "Apache-2.0"),
        ("<!-- SPDX-License-Identifier: CC-BY-4.0 -->\n", "CC-BY-4.0"),
        ("(* SPDX-License-Identifier: ISC *)\n", "ISC"),
        ("; SPDX-License-Identifier: apache-2.0\n", "Apache-2.0"),
        ("%% SPDX-License-Identifier: MIT License\n", "MIT"),
        ("#!/bin/sh\n#\n# SPDX-License-Identifier: 0BSD\n", "0BSD"),
        ('"""A module.\n\nSPDX-License-Identifier: MIT\n"""\n', "MIT"),
        (f"// {TAG}GPL-2.0 WITH Linux-syscall-note\n", "GPL-2.0 WITH Linux-syscall-note"),
        (f"# {TAG}MIT\n# {TAG}GPL-2.0-only OR ISC\n", "MIT AND (GPL-2.0-only OR ISC)"),
        (f"# {TAG}MIT\n# {TAG}MIT\n", "MIT"),
        (f"# {TAG}Somebody's Own\n", "Somebody"),  # never permissive
        (f"import os\n\n# {TAG}MIT\n", "MIT"),  # below the first code too
    ],
)
def test_tags(header: str, expected: str) -> None:
    assert from_header(header) == expected


APACHE = """Copyright 2020 The Authors.
Licensed under the Apache License, Version 2.0 (the "License");
you may not use this file except in compliance with the License."""
GPL = """This program is free software: you can redistribute it and/or modify
it under the terms of the GNU General Public License as published by
the Free Software Foundation, either version 3 of the License, or
(at your option) any later version."""
BSD = """Redistribution and use in source and binary forms, with or without
modification, are permitted provided that the following conditions are met:
1. Redistributions of source code must retain the above copyright notice.
2. Redistributions in binary form must reproduce the above copyright notice."""
ALTERNATIVELY = """
Alternatively, this software may be distributed under the terms of the
GNU General Public License version 2."""
MIT = """Permission is hereby granted, free of charge, to any person obtaining a copy of this
software, to deal in the Software without restriction. The above copyright notice and this
permission notice shall be included in all copies."""


@pytest.mark.parametrize(
    ("notice", "expected"),
    [
        (APACHE, "Apache-2.0"),
        ("Licensed to the ASF under one or more agreements. " + APACHE, "Apache-2.0"),
        (
            "Licensed under the Apache License v2.0 with LLVM Exceptions.",
            "Apache-2.0 WITH LLVM-exception",
        ),
        (MIT, "MIT"),
        ("Released under the MIT license.", "MIT"),
        ("@license MIT", "MIT"),
        ("License: BSD 3-Clause", "BSD-3-Clause"),
        (BSD, "BSD-2-Clause"),
        (BSD + "\n3. Neither the name of the holder may be used to endorse", "BSD-3-Clause"),
        (BSD + "\n3. All advertising materials must display this", "BSD-4-Clause"),
        ("Use of this source code is governed by a BSD-style\nlicense in LICENSE", "BSD-3-Clause"),
        (GPL, "GPL-3.0-or-later"),
        (GPL.replace("version 3", "version 2"), "GPL-2.0-or-later"),
        (GPL.replace(", or\n(at your option) any later version", ""), "GPL-3.0-only"),
        (
            GPL.replace("General", "Lesser General").replace("version 3", "version 2.1"),
            "LGPL-2.1-or-later",
        ),
        (GPL.replace("General", "Affero General"), "AGPL-3.0-or-later"),
        ("licensed under the GPL v2", "GPL-2.0-only"),
        (
            "This Source Code Form is subject to the terms of the Mozilla Public\nLicense, v. 2.0.",
            "MPL-2.0",
        ),
        (
            "BEGIN LICENSE BLOCK\nVersion: MPL 1.1/GPL 2.0/LGPL 2.1",
            "MPL-1.1 OR GPL-2.0-or-later OR LGPL-2.1-or-later",
        ),
        ("made available under the terms of the Eclipse Public License v1.0", "EPL-1.0"),
        ("Distributed under the Boost Software License, Version 1.0.", "BSL-1.0"),
        ("This file is in the public domain.", "LicenseRef-public-domain"),
        ("Dedicated to the public domain under CC0 1.0.", "LicenseRef-public-domain AND CC0-1.0"),
        (
            "Licensed under either of Apache License, Version 2.0 or MIT license at your option.",
            "Apache-2.0 OR MIT",
        ),
        ("Dual licensed under the MIT and GPL Version 2 licenses.", "MIT OR GPL-2.0-only"),
        (BSD + ALTERNATIVELY, "BSD-2-Clause OR GPL-2.0-only"),
        ("ACME: PROPRIETARY AND CONFIDENTIAL", "LicenseRef-proprietary"),
        ("Licensed under the Elastic License 2.0.", "Elastic-2.0"),
        ("Licensed under CC BY-NC-SA 4.0", "CC-BY-NC-SA-4.0"),
        ("See the file LICENSE.", ""),
        ("Checks the licence of an account.", ""),
        ("", ""),
    ],
)
@pytest.mark.parametrize(
    "frame",
    ["/*\n * {}\n */\nint x;\n", "# {}\nx = 1\n", "// {}\n", '"""{}\n"""\n', "<?php\n/** {} */"],
)
def test_notices_in_any_comments(notice: str, expected: str, frame: str) -> None:
    leader = {"/": " * ", "#": "# "}.get(frame[0], "") if not frame.startswith("//") else "// "
    assert from_header(frame.format(notice.replace("\n", "\n" + leader))) == expected


def test_a_notice_in_code_is_no_header() -> None:
    assert from_header(f"import os\n\nNOTICE = '''{APACHE}'''\n") == ""
    assert from_header("x = 1\n# " + APACHE.replace("\n", "\n# ")) == ""
    assert from_header(f'TEMPLATE = "{TAG}MIT"\n') == ""
    assert from_header("# A module.\n" * 1_000 + f"# {TAG}MIT\n") == ""
    assert len("# A module.\n") * 1_000 > HEAD_CHARACTERS


def test_a_module_names_its_license() -> None:
    assert from_header('"""Words."""\n\n__license__ = "BSD"\n') == "BSD-3-Clause"
    assert from_header('__license__ = "Ask me"\n') == ""


def test_the_cells_of_a_notebook() -> None:
    lines = [f"# {line}\n" for line in APACHE.splitlines()]
    for source in (lines, [f"# {TAG}Apache-2.0\n", "x = 1"]):
        cells = [{"cell_type": "code", "source": source}]
        assert from_header(json.dumps({"cells": cells}, indent=1)) == "Apache-2.0"
    assert from_header(json.dumps({"license": "MIT", "x": MIT})) == ""


@given(st.text(st.characters(codec=None)), st.text(st.characters(codec=None)))
def test_any_text_is_read(before: str, after: str) -> None:
    from_header(before)
    from_header(f"{before}license {after}")
    from_header(f"# {TAG}{after}")

"""Which version of this project is running: of a release, and of its very sources."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from snowcoder_jax import __version__


@functools.cache
def code_version() -> str:
    """`0.1.0+0123456789abcdef`: the release, and a hash of the library's source files."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:16]}"

"""Which version of this project is running: of a release, of its sources, of some of them."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from snowcoder_jax import __version__, storage

_ROOT = Path(__file__).parent.parent


@functools.cache
def code_version() -> str:
    """`0.1.0+0123456789abcdef`: the release, and a hash of the library's source files."""
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:16]}"


@functools.cache
def code_fingerprint(*relative: str) -> str:
    """Hash of source files (or of all files of a folder), named from the repository, so that a
    change of a stage's code redoes that stage and no other."""
    digest = hashlib.sha256()
    for name in relative:
        path = _ROOT / name
        for file in storage.list_files(str(path)) if path.is_dir() else [str(path)]:
            if "__pycache__" not in file:
                digest.update(Path(file).read_bytes())
    return digest.hexdigest()[:16]

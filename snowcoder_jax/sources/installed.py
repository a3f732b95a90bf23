"""The standard library and the distributions installed beside this Python, as repositories."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import re
import sysconfig
from collections.abc import Iterator

from snowcoder_jax.sources import licenses, paths, walk
from snowcoder_jax.sources.documents import LedgerRow
from snowcoder_jax.sources.walk import Candidate, NamedTree, Tree, TreeFile
from snowcoder_jax.text import license_names

OWN_DISTRIBUTION = "snowcoder-jax"
STANDARD_LIBRARY = "cpython"

_SITE_FOLDERS = frozenset({"site-packages", "dist-packages"})


def normalise(name: str) -> str:
    """A distribution's name in its normal form (PyPA name normalisation)."""
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def distributions() -> dict[str, importlib.metadata.Distribution]:
    """By normalised name; of two with one name the first on the path, as `import` would."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        name = _field(distribution.metadata, "Name")
        if name:
            found.setdefault(normalise(name), distribution)
    return dict(sorted(found.items()))


def _field(metadata: importlib.metadata.PackageMetadata, name: str) -> str | None:
    # Newer Pythons raise for a field that is not there.
    if name not in metadata:
        return None
    return metadata[name]


def trees(
    repo: str, max_file_bytes: int
) -> Iterator[tuple[Tree, Iterator[Candidate | LedgerRow | None]]]:
    """The trees that make up a distribution or the standard library, each with its walk."""
    if repo == STANDARD_LIBRARY:
        for name, key in (("Lib/", "stdlib"), ("Include/", "include")):
            root = sysconfig.get_paths()[key]
            if os.path.isdir(root):
                tree = _StandardLibrary(root)
                items = walk.walk(
                    repo,
                    tree,
                    license_id="PSF-2.0",
                    max_file_bytes=max_file_bytes,
                    prefix=name,
                    passed_over=_SITE_FOLDERS,
                )
                yield tree, items
        return
    distribution = distributions()[repo]
    metadata = distribution.metadata
    license_id = license_names.from_metadata(
        _field(metadata, "License-Expression"),
        _field(metadata, "License"),
        metadata.get_all("Classifier") or [],
    )
    named = _tree(distribution)
    yield named, walk.walk(repo, named, license_id=license_id, max_file_bytes=max_file_bytes)


class _StandardLibrary(walk.LocalTree):
    """Without the `LICENSE.txt` at its root, which tells of every licence in Python's history."""

    def list(self, folder: str) -> walk.Folder:
        found = super().list(folder)
        if not folder:
            found.files = [f for f in found.files if not licenses.is_license_file(f.name)]
        return found


def _tree(distribution: importlib.metadata.Distribution) -> NamedTree:
    """The files that a distribution says are its own, by `RECORD`."""
    root = str(distribution.locate_file(""))
    tree = NamedTree(walk.LocalTree(root).read)
    for file in distribution.files or []:
        # Scripts, data and headers outside site-packages stand in no repository's tree.
        if ".." in file.parts or file.is_absolute():
            continue
        folder, _, name = file.as_posix().rpartition("/")
        if walk.is_of_interest(folder, name):
            entry = paths.lstat(f"{root}/{folder}/{name}")
            tree.add(folder, TreeFile(name, entry.size_bytes, entry.changed, entry.kind))
        else:
            tree.add(folder, TreeFile(name, 0))
    return tree

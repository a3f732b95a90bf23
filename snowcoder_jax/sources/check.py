"""What is wrong with the recipe's sources before any work starts; cheap."""

from __future__ import annotations

from snowcoder_jax import storage
from snowcoder_jax.recipe_corpus import (
    FolderSource,
    InstalledSource,
    JsonlSource,
    ParquetSource,
    Source,
)
from snowcoder_jax.sources import archives, installed, paths, table_files, tables
from snowcoder_jax.strict import Fault, nearest


def check_source(source: Source) -> list[Fault]:
    """The faults of one source, each with its mend.

    Raises:
      InputError: the package that reaches its kind of storage is not installed.
    """
    at = f"sources.{source.name}"
    if isinstance(source, InstalledSource):
        return _check_installed(source, at)
    try:
        if isinstance(source, FolderSource):
            return _check_folder(source, f"{at}.path")
        return _check_table(source, at)
    except OSError as e:
        problem = f"`{source.path}` cannot be read ({e.strerror or e})"
        return [Fault(f"{at}.path", problem, "Mend its permissions, or name another.")]


def check_opt_out(path: str | None) -> list[Fault]:
    if path is None or storage.exists(path):
        return []
    mend = "Name a text file with one repository a line, or take the field out."
    return [Fault("corpus.opt_out", f"`{path}` does not exist", mend)]


def _check_installed(source: InstalledSource, at: str) -> list[Fault]:
    faults = []
    if not 0 < source.sample_share <= 1:
        problem = f"{source.sample_share} is not above 0 and at most 1"
        faults.append(Fault(f"{at}.sample_share", problem, "Give a share such as 0.5."))
    if source.exclude:
        known = [installed.STANDARD_LIBRARY, *installed.distributions()]
        for name in source.exclude:
            if installed.normalise(name) not in known:
                mend = nearest(installed.normalise(name), known)
                faults.append(Fault(f"{at}.exclude", f"no distribution `{name}`", mend))
    return faults


def _check_folder(source: FolderSource, at: str) -> list[Fault]:
    places = paths.expand(source.path)
    if not places:
        mend = "Name an existing folder, an archive, or a pattern that some match."
        return [Fault(at, f"`{source.path}` does not exist", mend)]
    folders = [place for place in places if paths.entry(place).kind == "folder"]
    if any(paths.children(folder) for folder in folders) or any(map(archives.is_archive, places)):
        return []
    if folders:
        mend = "Put repositories into it, or take the source out of the recipe."
        return [Fault(at, f"`{source.path}` is empty", mend)]
    mend = f"Name a folder, or an archive ({', '.join(archives.SUFFIXES)})."
    return [Fault(at, f"`{source.path}` is a file", mend)]


def _check_table(source: ParquetSource | JsonlSource, at: str) -> list[Fault]:
    faults = [
        Fault(f"{at}.columns.{name}", "no such column of ours", nearest(name, tables.COLUMNS))
        for name in source.columns
        if name not in tables.COLUMNS
    ]
    files = table_files(source)
    if not files:
        is_parquet = isinstance(source, ParquetSource)
        kind = "Parquet" if is_parquet else "JSON lines"
        suffixes = tables.PARQUET_SUFFIXES if is_parquet else tables.JSONL_SUFFIXES
        mend = f"Name a file, or a folder or a pattern with some ({', '.join(suffixes)})."
        return [*faults, Fault(f"{at}.path", f"`{source.path}` holds no {kind} file", mend)]
    if irregular := [file.path for file in files if file.kind != "file"]:
        mend = "Take it away, or name the others by a pattern."
        problems = [f"`{path}` is no regular file" for path in irregular]
        return [*faults, *(Fault(f"{at}.path", problem, mend) for problem in problems)]
    present = tables.first_columns(files[0].path)
    if present is None:
        return faults  # broken: the ledger will say so
    names = tables.columns(source.layout, source.columns)
    for ours in tables.COLUMNS:
        theirs = names[ours]
        if theirs not in present and (ours in tables.NEEDED or ours in source.columns):
            mend = f"Map it: `columns: {{{ours}: ...}}`. {nearest(theirs, sorted(present))}"
            problem = f"`{files[0].path}` has no column `{theirs}`"
            faults.append(Fault(f"{at}.columns.{ours}", problem, mend))
    return faults

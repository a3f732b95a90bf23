"""The recipe's sources as file references: what there is to read, before any of it is read.

`list_source` walks a source and returns cheap references, with a ledger row for everything that
cannot become a document; `source_files.read_references` then reads them. Symbolic links are never
followed, hidden folders and `node_modules` never entered. A path that is not valid UTF-8 appears
with its bytes escaped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import re
import stat
import sysconfig
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from snowcoder_jax import archives, storage
from snowcoder_jax.archives import ArchiveError
from snowcoder_jax.recipe import FolderSource, InstalledSource, ParquetSource, Source
from snowcoder_jax.source_files import FileReference, Listing
from snowcoder_jax.strict import Fault, nearest
from snowcoder_jax.text import license_names

OWN_DISTRIBUTION = "snowcoder-jax"
STANDARD_LIBRARY = "cpython"
PARQUET_COLUMNS = ("content", "repo", "path", "license", "stars")

_SKIPPED_FOLDERS = {"node_modules", "__pycache__"}
_SITE_FOLDERS = {"site-packages", "dist-packages"}
_MAX_LICENSE_BYTES = 100_000


def normalise(name: str) -> str:
    """A distribution's name in its normal form (PyPA name normalisation)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def check_source(source: Source) -> list[Fault]:
    """What is wrong with a source before any work starts; cheap."""
    at = f"sources.{source.name}"
    if isinstance(source, InstalledSource):
        return _check_installed(source, at)
    if isinstance(source, FolderSource):
        return _check_folder(source, at)
    return _check_parquet(source, at)


def _check_installed(source: InstalledSource, at: str) -> list[Fault]:
    faults = []
    if not 0 < source.sample_share <= 1:
        problem = f"{source.sample_share} is not above 0 and at most 1"
        faults.append(Fault(f"{at}.sample_share", problem, "Give a share such as 0.5."))
    if source.exclude:
        known = [STANDARD_LIBRARY, *_distributions()]
        for name in source.exclude:
            if normalise(name) not in known:
                mend = nearest(normalise(name), known)
                faults.append(Fault(f"{at}.exclude", f"no distribution `{name}`", mend))
    return faults


def _check_folder(source: FolderSource, at: str) -> list[Fault]:
    field, path = f"{at}.path", source.path
    if not storage.is_local(path):
        return [Fault(field, f"`{path}` is not a local folder", "Copy it to this machine first.")]
    if not os.path.exists(path):
        return [Fault(field, f"`{path}` does not exist", "Name an existing folder.")]
    if os.path.isfile(path):
        if archives.is_archive(path):
            return []
        mend = f"Name a folder, or an archive ({', '.join(archives.SUFFIXES)})."
        return [Fault(field, f"`{path}` is a file", mend)]
    try:
        is_empty = not os.listdir(path)
    except OSError as e:
        return [Fault(field, f"`{path}` cannot be read ({e.strerror})", "Mend its permissions.")]
    mend = "Put repositories into it, or take the source out of the recipe."
    return [Fault(field, f"`{path}` is empty", mend)] if is_empty else []


def _check_parquet(source: ParquetSource, at: str) -> list[Fault]:
    faults = [
        Fault(f"{at}.columns.{name}", "no such column of ours", nearest(name, PARQUET_COLUMNS))
        for name in source.columns
        if name not in PARQUET_COLUMNS
    ]
    if not _parquet_files(source.path):
        mend = "Name a Parquet file, or a folder with some."
        faults.append(Fault(f"{at}.path", f"`{source.path}` holds no Parquet file", mend))
    return faults


def list_source(source: Source, *, seed: int, max_file_bytes: int) -> Listing:
    """Walk a source. Order: by repository and path, whatever the file system's."""
    listing = Listing()
    if isinstance(source, InstalledSource):
        _list_installed(source, seed, listing, max_file_bytes)
    elif isinstance(source, FolderSource):
        _list_folder(source, listing, max_file_bytes)
    else:
        _list_parquet(source, listing, max_file_bytes)
    listing.references.sort(key=lambda r: (r.repo, r.path, r.location, r.row))
    listing.ledger.sort(key=lambda r: (r.repo, r.path, r.reason))
    return listing


def fingerprint(listings: Sequence[Listing]) -> str:
    """16 hex digits that change when a file comes, goes, or is written to."""
    digest = hashlib.sha256()
    for listing in listings:
        items = [*map(dataclasses.astuple, listing.references)]
        items += map(dataclasses.astuple, listing.ledger)
        digest.update(repr(items).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:16]


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _add_file(
    listing: Listing, repo: str, path: str, location: str, license_id: str, max_file_bytes: int
) -> None:
    try:
        status = os.lstat(location)
    except OSError:
        listing.refuse(repo, path, "unreadable")
        return
    if stat.S_ISLNK(status.st_mode):
        listing.refuse(repo, path, "symlink")
    elif not stat.S_ISREG(status.st_mode):
        listing.refuse(repo, path, "not_a_file")
    else:
        size, changed = status.st_size, status.st_mtime_ns
        reference = FileReference(repo, path, license_id, size, location, changed_ns=changed)
        listing.add(reference, max_file_bytes)


def _list_installed(
    source: InstalledSource, seed: int, listing: Listing, max_file_bytes: int
) -> None:
    excluded = {normalise(OWN_DISTRIBUTION), *map(normalise, source.exclude)}

    def is_wanted(repo: str) -> bool:
        share = storage.seeded_share(seed, "sample", repo)
        return repo not in excluded and share < source.sample_share

    if is_wanted(STANDARD_LIBRARY):
        for name, key in (("Lib", "stdlib"), ("Include", "include")):
            root = sysconfig.get_paths()[key]
            if os.path.isdir(root):
                _walk(root, STANDARD_LIBRARY, "PSF-2.0", listing, max_file_bytes, prefix=f"{name}/")
    for repo, distribution in _distributions().items():
        if not is_wanted(repo):
            continue
        metadata = distribution.metadata
        license_id = license_names.from_metadata(
            _field(metadata, "License-Expression"),
            _field(metadata, "License"),
            metadata.get_all("Classifier") or [],
        )
        for file in distribution.files or []:
            path = file.as_posix()
            # Scripts, data and headers outside site-packages stand in no repository's tree.
            if ".." not in file.parts and not file.is_absolute():
                location = str(distribution.locate_file(file))
                _add_file(listing, repo, _printable(path), location, license_id, max_file_bytes)


def _field(metadata: importlib.metadata.PackageMetadata, name: str) -> str | None:
    # Newer Pythons raise for a field that is not there.
    if name not in metadata:
        return None
    return metadata[name]


def _distributions() -> dict[str, importlib.metadata.Distribution]:
    """By normalised name; of two with one name the first on the path, as `import` would."""
    found: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        name = _field(distribution.metadata, "Name")
        if name:
            found.setdefault(normalise(name), distribution)
    return dict(sorted(found.items()))


def _list_folder(source: FolderSource, listing: Listing, max_file_bytes: int) -> None:
    root = os.path.abspath(source.path)
    own_name = _printable(os.path.basename(root))
    stated = source.license or ""
    if os.path.isfile(root):
        _list_archive(root, archives.stem(own_name), stated, listing, max_file_bytes)
        return
    if source.layout == "repository":
        _walk(root, own_name, _folder_license(root, stated), listing, max_file_bytes)
        return
    # Files beside the repositories make one of their own, named after the folder.
    loose = own_name if not os.path.isdir(os.path.join(root, own_name)) else f"{own_name}.files"
    loose_license = _folder_license(root, stated)
    for entry in sorted(os.scandir(root), key=lambda e: e.name):
        name = _printable(entry.name)
        if entry.is_dir(follow_symlinks=False):
            if not _is_skipped(entry.name):
                license_id = _folder_license(entry.path, stated or loose_license)
                _walk(entry.path, name, license_id, listing, max_file_bytes)
        elif archives.is_archive(entry.name) and entry.is_file(follow_symlinks=False):
            _list_archive(entry.path, archives.stem(name), stated, listing, max_file_bytes)
        else:
            _add_file(listing, loose, name, entry.path, loose_license, max_file_bytes)


def _is_skipped(folder: str) -> bool:
    return folder.startswith(".") or folder in _SKIPPED_FOLDERS


def _walk(
    root: str, repo: str, license_id: str, listing: Listing, max_file_bytes: int, prefix: str = ""
) -> None:
    def name_in_repo(path: str) -> str:
        return prefix + _printable(os.path.relpath(path, root)).replace(os.sep, "/")

    def refuse(error: OSError) -> None:
        listing.refuse(repo, name_in_repo(error.filename), "unreadable")

    skipped_here = _SITE_FOLDERS if repo == STANDARD_LIBRARY and prefix else set()
    for folder, subfolders, names in os.walk(root, onerror=refuse):
        for name in subfolders:
            if os.path.islink(os.path.join(folder, name)):
                listing.refuse(repo, name_in_repo(os.path.join(folder, name)), "symlink")
        subfolders[:] = [n for n in subfolders if not _is_skipped(n) and n not in skipped_here]
        for name in names:
            location = os.path.join(folder, name)
            path = name_in_repo(location)
            _add_file(listing, repo, path, location, license_id, max_file_bytes)


def _folder_license(folder: str, stated: str) -> str:
    """The licence of a licence file at the root of a folder, else what the recipe states."""
    try:
        names = sorted(e.name for e in os.scandir(folder) if e.is_file(follow_symlinks=False))
        for name in filter(license_names.is_license_file, names):
            with open(os.path.join(folder, name), "rb") as f:
                text = f.read(_MAX_LICENSE_BYTES).decode("utf-8", "replace")
            if found := license_names.from_text(text):
                return found
    except OSError:
        return stated  # the walk records what cannot be read
    return stated


def _list_archive(path: str, repo: str, stated: str, listing: Listing, max_file_bytes: int) -> None:
    size, changed = os.path.getsize(path), os.stat(path).st_mtime_ns
    try:
        members = archives.list_members(path)
        license_id = _archive_license(path, members) or stated
    except ArchiveError as e:
        listing.refuse(repo, _printable(os.path.basename(path)), str(e), size)
        return
    seen: set[str] = set()
    for member in members:
        name = _printable(member.path)
        if not archives.is_safe(member.path):
            listing.refuse(repo, name, "unsafe_path", member.size_bytes)
        elif name not in seen and not any(map(_is_skipped, name.split("/")[:-1])):
            # Of two members with one name the first counts; reading takes the same one.
            seen.add(name)
            reference = FileReference(
                repo, name, license_id, member.size_bytes, path, member.path, changed_ns=changed
            )
            listing.add(reference, max_file_bytes)


def _archive_license(path: str, members: Sequence[archives.Member]) -> str:
    """Archives of repositories hold one top folder or none: both roots are looked at."""
    names = {
        m.path
        for m in members
        if m.path.count("/") <= 1 and license_names.is_license_file(m.path.rsplit("/", 1)[-1])
    }
    if not names:
        return ""
    texts = {}
    for name, data in archives.read_members(path, names, _MAX_LICENSE_BYTES):
        texts[name] = license_names.from_text(data.decode("utf-8", "replace"))
    return next((texts[n] for n in sorted(texts) if texts[n]), "")


def _parquet_files(path: str) -> list[str]:
    if path.endswith(".parquet"):
        return [path] if storage.exists(path) else []
    return storage.list_files(path, ".parquet")


def _list_parquet(source: ParquetSource, listing: Listing, max_file_bytes: int) -> None:
    for file_path in _parquet_files(source.path):
        try:
            _list_parquet_file(source, file_path, listing, max_file_bytes)
        except (pa.ArrowException, OSError):
            listing.refuse(source.name, _printable(os.path.basename(file_path)), "broken_parquet")


def _list_parquet_file(
    source: ParquetSource, file_path: str, listing: Listing, max_file_bytes: int
) -> None:
    name_of = {ours: source.columns.get(ours, ours) for ours in PARQUET_COLUMNS}
    file_name = os.path.basename(file_path)
    with storage.open_read(file_path) as f:
        file = pq.ParquetFile(f)
        present = set(file.schema_arrow.names)
        if not {name_of["content"], name_of["path"]} <= present:
            listing.refuse(source.name, file_name, "missing_column")
            return
        wanted = [name_of[n] for n in PARQUET_COLUMNS[1:] if name_of[n] in present]
        table = file.read(columns=wanted).select(wanted)
        columns = {
            n: table[name_of[n]].to_pylist() for n in PARQUET_COLUMNS[1:] if name_of[n] in present
        }
        num_rows = table.num_rows
    # Row sizes are not known without reading the text: every row counts the same in the plan.
    size = storage.size_bytes(file_path) // max(num_rows, 1)
    for row in range(num_rows):
        path = columns["path"][row]
        if not isinstance(path, str) or not path:
            listing.refuse(source.name, f"{file_name}:{row}", "no_path")
            continue
        repo = str(_cell(columns, "repo", row) or source.name)
        listing.add(
            FileReference(
                repo,
                path,
                _joined_licenses(_cell(columns, "license", row)),
                min(size, max_file_bytes),
                file_path,
                name_of["content"],
                row,
                _whole_number(_cell(columns, "stars", row)),
            ),
            max_file_bytes,
        )


def _cell(columns: dict[str, list[object]], name: str, row: int) -> object:
    return columns[name][row] if name in columns else None


def _joined_licenses(value: object) -> str:
    """Several detected licences all hold; which of them covers the file is not known."""
    if isinstance(value, list):
        return " AND ".join(str(v) for v in value)
    return str(value) if value else ""


def _whole_number(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and value == value else None

"""Paths, atomic writes, manifests. Every path is local or a URL (`gs://...`) through fsspec.

Nothing half-written is ever taken for whole: a file comes into being by rename (or, on an
object store, by the atomic close of its upload), and its manifest is written after it.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import itertools
import json
import logging
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from typing import IO, Any

import fsspec
import xxhash

from snowcoder_jax.errors import InputError, MachineError

MANIFEST_SUFFIX = ".manifest.json"
_TEMPORARY = ".tmp-"
_LOG = logging.getLogger(__name__)


def is_local(path: str) -> bool:
    return "://" not in path


def _file_system(path: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path inside it.

    Raises:
      InputError: the package that reaches this kind of storage is not installed.
    """
    try:
        # A listing kept from before would hide what other machines have written since.
        fs, inner = fsspec.core.url_to_fs(path, use_listings_cache=False)
    except (ImportError, ValueError) as e:
        raise InputError(
            f"{path}: this storage cannot be reached ({e}). "
            "For gs:// install the extra: pip install 'snowcoder-jax[gcp]'."
        ) from e
    return fs, inner


def join(*parts: str) -> str:
    return "/".join([parts[0].rstrip("/"), *(p.strip("/") for p in parts[1:])])


def relative(path: str, start: str) -> str:
    """`path` as seen from the folder `start`, where both are local; a URL stays as it is."""
    return os.path.relpath(path, start) if is_local(path) and is_local(start) else path


def resolve(path: str, start: str) -> str:
    """The inverse of `relative`."""
    if not is_local(path) or os.path.isabs(path):
        return path
    return os.path.normpath(os.path.join(start, path))


def exists(path: str) -> bool:
    if is_local(path):
        return os.path.exists(path)
    fs, inner = _file_system(path)
    return bool(fs.exists(inner))


def list_files(folder: str, suffix: str = "") -> list[str]:
    """Every file below `folder` whose name ends with `suffix`, sorted; none if there is none."""
    if is_local(folder):
        found = [os.path.join(d, n) for d, _, names in os.walk(folder) for n in names]
    else:
        fs, inner = _file_system(folder)
        found = [join(folder, f[len(inner.rstrip("/")) :]) for f in fs.find(inner)]
    return sorted(f for f in found if f.endswith(suffix) and "/.tmp-" not in f)


def matches(pattern: str) -> list[str]:
    """The local files and folders that a glob stands for, in order.

    `**` stands for any number of folders, hidden ones excepted. Links to folders are not followed
    by it or by what comes after it: with them files would be found many times, or without end.
    """
    before, is_deep, after = _at_double_star(pattern)
    if not is_deep:
        return sorted(glob.glob(pattern))
    found: set[str] = set()
    for root in glob.glob(before or os.curdir):
        for folder, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            if after:
                below = matches(os.path.join(glob.escape(folder), after))
                found.update(path for path in below if not _is_past_link(path, folder))
            else:
                found.update(os.path.join(folder, n) for n in names if not n.startswith("."))
                found.add(folder)
    return sorted(path if before else path.removeprefix("./") for path in found)


def _at_double_star(pattern: str) -> tuple[str, bool, str]:
    """What stands before the first `**` of a pattern and after it, and whether there is one."""
    parts = pattern.split("/")
    if "**" not in parts:
        return pattern, False, ""
    at = parts.index("**")
    before = "/".join(parts[:at]) or ("/" if at else "")
    return before, True, "/".join(itertools.dropwhile(lambda part: part == "**", parts[at:]))


def _is_past_link(path: str, folder: str) -> bool:
    """Whether a link to a folder stands on the way from a folder to what is below it."""
    while len(path) > len(folder):
        if os.path.islink(path) and os.path.isdir(path):
            return True
        path = os.path.dirname(path)
    return False


def open_read(path: str) -> IO[bytes]:
    if is_local(path):
        return open(path, "rb")
    fs, inner = _file_system(path)
    return fs.open(inner, "rb")


def read_bytes(path: str) -> bytes:
    with open_read(path) as f:
        return f.read()


def read_range(path: str, start: int, size: int) -> bytes:
    """`size` bytes of a file from `start`, without reading the rest of it."""
    if is_local(path):
        with open(path, "rb") as f:
            f.seek(start)
            return f.read(size)
    fs, inner = _file_system(path)
    data: bytes = fs.cat_file(inner, start, start + size)
    return data


def read_json(path: str) -> Any:
    """Raises InputError where the file is there and is not JSON; FileNotFoundError without one."""
    return _parsed(read_bytes(path), path)


def read_json_if_sound(path: str) -> Any:
    """Of a file that can be made again: None where it is missing or, as the log says, damaged."""
    try:
        return _if_sound(read_bytes(path), path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_json_lines(path: str) -> list[Any]:
    """The lines of a log; none where there is no file. What follows the last newline is a line
    that a kill cut short; of others that are damaged the log says that they are left out."""
    if not exists(path):
        return []
    whole = read_bytes(path).rpartition(b"\n")[0]
    numbered = enumerate(whole.splitlines(), start=1)
    values = [_if_sound(line, f"{path}: line {number}") for number, line in numbered]
    return [value for value in values if value is not None]


def _parsed(data: bytes, path: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as e:
        raise InputError(
            f"{path}: is damaged: it is no JSON ({e}). Put it back from a copy, or remove it and "
            "start the same command again."
        ) from e


def _if_sound(data: bytes, place: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as e:
        _LOG.warning("%s: is damaged and left out: it is no JSON (%s)", place, e)
        return None


@contextlib.contextmanager
def atomic_path(path: str) -> Iterator[str]:
    """A local temporary path to write to; on a clean exit it becomes `path`, whole.

    Raises:
      InputError: the folder cannot be written.
      MachineError: the disk is full.
    """
    remote = not is_local(path)
    folder = tempfile.gettempdir() if remote else os.path.dirname(os.path.abspath(path))
    # Unique even among the threads of one worker, which may write files of the same name.
    temporary = os.path.join(folder, f"{_TEMPORARY}{uuid.uuid4().hex}-{os.path.basename(path)}")
    with machine_faults(temporary if remote else path):
        os.makedirs(folder, exist_ok=True)
        try:
            yield temporary
            if remote:
                _upload(temporary, path)
            else:
                with open(temporary, "rb") as f:
                    os.fsync(f.fileno())
                os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)


def remove_temporaries(folder: str) -> None:
    """Remove what a killed process left half-written below a local folder; only for one that has
    the folder to itself. Folders of later steps, which others may be filling, are passed over."""
    if not is_local(folder):
        return
    for inside, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != "attributes"]
        for name in names:
            if name.startswith(_TEMPORARY):
                os.unlink(os.path.join(inside, name))


def _upload(local: str, url: str) -> None:
    fs, inner = _file_system(url)
    try:
        fs.put_file(local, inner)
    except OSError as e:
        # Object stores set no errno where a bucket is not there, or may not be written to.
        if isinstance(e, (FileNotFoundError, PermissionError)) or "Forbidden" in str(e):
            raise InputError(
                f"{url}: cannot be written ({type(e).__name__}: {e}). "
                "Check that the bucket exists and that your account may write to it."
            ) from e
        raise


@contextlib.contextmanager
def machine_faults(path: str) -> Iterator[None]:
    """Turn the operating system's refusals to write at `path` into messages with a mend."""
    try:
        yield
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise MachineError(
                f"{path}: the disk is full. Free some space and start the same command again; "
                "what was finished is kept."
            ) from e
        if e.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError(
                f"{path}: cannot be written ({e.strerror}). "
                "Set `output` in the recipe to a folder you may write to."
            ) from e
        if e.errno in (errno.ENOTDIR, errno.EEXIST):
            raise InputError(
                f"{path}: a file stands where a folder is needed. "
                "Move it, or set `output` in the recipe to another folder."
            ) from e
        raise


def write_bytes(path: str, data: bytes) -> None:
    with atomic_path(path) as temporary, open(temporary, "wb") as f:
        f.write(data)


def write_json(path: str, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def remove(path: str) -> None:
    """Remove a file or a whole folder; nothing happens where it is not."""
    if is_local(path):
        if os.path.isdir(path):
            shutil.rmtree(path)
        elif os.path.exists(path):
            os.unlink(path)
        return
    fs, inner = _file_system(path)
    if fs.exists(inner):
        fs.rm(inner, recursive=True)


def rename(old: str, new: str) -> None:
    """Move a file or folder; on an object store, copy and delete."""
    if is_local(old):
        os.makedirs(os.path.dirname(os.path.abspath(new)), exist_ok=True)
        os.replace(old, new)
        return
    fs, source = _file_system(old)
    _, target = _file_system(new)
    for path in fs.find(source):
        fs.copy(path, target + path[len(source) :])
    fs.rm(source, recursive=True)


def sha256_file(path: str) -> str:
    with open_read(path) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()  # type: ignore[arg-type]


def size_bytes(path: str) -> int:
    if is_local(path):
        return os.path.getsize(path)
    fs, inner = _file_system(path)
    return int(fs.size(inner))


def sizes_bytes(folder: str) -> dict[str, int]:
    """The size of every file below `folder`, by its path there; one listing of an object store."""
    if is_local(folder):
        root = folder.rstrip("/") + "/"
        return {p[len(root) :]: os.path.getsize(p) for p in list_files(root)}
    fs, inner = _file_system(folder)
    found = fs.find(inner, detail=True)
    return {p[len(inner.rstrip("/")) + 1 :]: int(facts["size"]) for p, facts in found.items()}


def write_manifest(path: str, key: str, **facts: Any) -> None:
    """Vouch for the finished file `path`: written last, so its presence means wholeness.

    Args:
      path: a file that is complete.
      key: fingerprint of the parameters, inputs and code that made it.
      **facts: anything JSON: inputs, counts.
    """
    manifest = {"key": key, "sha256": sha256_file(path), "bytes": size_bytes(path), **facts}
    write_json(path + MANIFEST_SUFFIX, manifest)


def read_manifest(path: str) -> dict[str, Any] | None:
    """The manifest of a file, or None where it has none, or a damaged one, or its file is gone or
    another size."""
    try:
        return _vouching(read_json_if_sound(path + MANIFEST_SUFFIX), size_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def _vouching(manifest: Any, size: int | None) -> dict[str, Any] | None:
    is_sound = isinstance(manifest, dict) and "key" in manifest
    return manifest if is_sound and manifest.get("bytes") == size else None


def read_manifests(folder: str, paths: Sequence[str]) -> list[dict[str, Any] | None]:
    """`read_manifest` of many files below one folder, asked of an object store all at once."""
    if is_local(folder):
        return [read_manifest(path) for path in paths]
    fs, inner = _file_system(folder)
    sizes = sizes_bytes(folder)
    inside = [path[len(folder.rstrip("/")) + 1 :] for path in paths]
    wanted = [f"{inner}/{p}{MANIFEST_SUFFIX}" for p in inside if p + MANIFEST_SUFFIX in sizes]
    found = fs.cat(wanted) if wanted else {}
    result: list[dict[str, Any] | None] = []
    for p in inside:
        manifest = p + MANIFEST_SUFFIX
        data = found.get(f"{inner}/{manifest}")
        told = None if data is None else _if_sound(data, join(folder, manifest))
        result.append(_vouching(told, sizes.get(p)))
    return result


def is_done(path: str, key: str) -> bool:
    """Whether `path` is whole and was made with exactly `key`."""
    manifest = read_manifest(path)
    return manifest is not None and manifest["key"] == key


def seeded_hash(seed: int, purpose: str, identity: str) -> int:
    """64 uniform bits from (seed, purpose, identity): the only source of chance for data."""
    data = f"{purpose}\x00{identity}".encode("utf-8", "surrogatepass")
    return xxhash.xxh3_64_intdigest(data, seed)


def seeded_share(seed: int, purpose: str, identity: str) -> float:
    """`seeded_hash` as a number in [0, 1)."""
    return seeded_hash(seed, purpose, identity) / 2.0**64

"""Atomic writes and manifests: nothing half-written is taken for whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError, MachineError


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    storage.write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), storage.atomic_path(path) as temporary:
        Path(temporary).write_bytes(b"half")
        _ = 1 // 0
    assert Path(path).read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_a_full_disk_and_a_read_only_folder_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="disk is full"), storage.machine_faults("x"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(InputError, match=r"Set `output`"), storage.machine_faults("x"):
        raise OSError(errno.EROFS, "Read-only file system")
    with pytest.raises(OSError, match="other"), storage.machine_faults("x"):
        raise OSError(errno.EIO, "other")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        storage.write_bytes(str(tmp_path / "file" / "below"), b"")


def test_a_really_full_disk(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.fail("this test needs /dev/full")
    with pytest.raises(MachineError, match="disk is full"), storage.machine_faults("/dev/full"):
        with open("/dev/full", "wb", buffering=0) as f:
            f.write(b"x")


def test_a_file_is_done_only_with_its_manifest_key_and_size(tmp_path: Path) -> None:
    path = str(tmp_path / "part")
    storage.write_bytes(path, b"12345")
    assert not storage.is_done(path, "k")
    storage.write_manifest(path, "k", rows=1)
    assert storage.is_done(path, "k")
    assert not storage.is_done(path, "other")
    Path(path).write_bytes(b"1234")
    assert not storage.is_done(path, "k")
    os.unlink(path)
    assert not storage.is_done(path, "k")


def test_remote_paths_work_alike() -> None:
    root = "memory://storage-test"
    path = storage.join(root, "a/b.json")
    storage.write_json(path, {"x": 1})
    storage.write_manifest(path, "k")
    assert storage.read_json(path) == {"x": 1}
    assert storage.is_done(path, "k")
    assert [p.rsplit("/", 1)[1] for p in storage.list_files(root)] == [
        "b.json",
        "b.json.manifest.json",
    ]
    storage.remove(root)
    assert not storage.exists(path)


def test_chance_depends_on_seed_purpose_and_identity_alone() -> None:
    value = storage.seeded_hash(1, "p", "i")
    assert value == storage.seeded_hash(1, "p", "i")
    others = [
        storage.seeded_hash(2, "p", "i"),
        storage.seeded_hash(1, "q", "i"),
        storage.seeded_hash(1, "p", "j"),
    ]
    assert value not in others
    shares = [storage.seeded_share(0, "s", str(i)) for i in range(4000)]
    assert 0.47 < sum(shares) / len(shares) < 0.53
    assert min(shares) >= 0
    assert max(shares) < 1

"""Atomic writes and manifests: nothing half-written is taken for whole."""

from __future__ import annotations

import errno
import http.server
import importlib
import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import gcsfs
import pytest
import small_cloud

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.sources import paths
from snowcoder_jax.text import benchmarks


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = str(tmp_path / "a")
    storage.write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), storage.atomic_path(path) as temporary:
        Path(temporary).write_bytes(b"half")
        _ = 1 // 0
    assert Path(path).read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.timeout(30)
def test_double_stars_do_not_follow_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two links that lead back: Python's own glob finds 2^40 paths."""
    for name in ("a.x", "sub/b.x", "sub/deep/c.x", ".hidden/d.x", "[1]/e.x", "sub/f.y"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "sub/loop").symlink_to(tmp_path)
    (tmp_path / "sub/link.x").symlink_to("b.x")

    def found(pattern: str) -> list[str]:
        return [os.path.relpath(p, tmp_path) for p in storage.matches(f"{tmp_path}/{pattern}")]

    every = ["[1]/e.x", "a.x", "sub/b.x", "sub/deep/c.x", "sub/link.x"]
    assert found("**/*.x") == every
    assert found("**/**/*.x") == every
    assert found("**/*/*.x") == [name for name in every if name != "a.x"]
    assert found("**/sub/**/*.x") == ["sub/b.x", "sub/deep/c.x", "sub/link.x"]
    assert found("**/sub/loop/*.x") == []
    assert found("sub/loop/*.x") == ["sub/loop/a.x"]  # it is named
    assert found("loop/**/c.x") == ["loop/sub/deep/c.x"]
    assert found("sub/**") == [
        "sub", "sub/b.x", "sub/deep", "sub/deep/c.x", "sub/f.y", "sub/link.x"
    ]  # fmt: skip
    assert found("**/deep") == ["sub/deep"]
    assert found("none/**/*.x") == []
    monkeypatch.chdir(tmp_path)
    assert storage.matches("**/*.x") == every
    assert storage.matches("./**/*.x") == [f"./{name}" for name in every]
    assert storage.matches("**/c.x") == ["sub/deep/c.x"]


@pytest.mark.timeout(30)
def test_sources_and_benchmarks_below_links_that_lead_back(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"task_id": 1, "prompt": "x"}\n')
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(tmp_path)
    pattern = f"{tmp_path}/**/*.jsonl"
    assert paths.expand(pattern) == [f"{tmp_path}/a.jsonl"]
    assert benchmarks.expand([pattern]) == [f"{tmp_path}/a.jsonl"]


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


@pytest.fixture(scope="module")
def emulator() -> Iterator[str]:
    with small_cloud.emulated_storage() as environment:
        yield environment["STORAGE_EMULATOR_HOST"]


@pytest.fixture
def bucket(emulator: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder of a bucket, reached as a user's would be but for the emulator's address."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    # The extended class asks over gRPC what kind a bucket is; the emulator does not speak that.
    registry = importlib.import_module("fsspec.registry")
    monkeypatch.setitem(registry._registry, "gs", gcsfs.core.GCSFileSystem)
    gcsfs.core.GCSFileSystem.clear_instance_cache()
    return f"gs://bucket/{uuid.uuid4().hex}"


@pytest.fixture(params=["local", "memory", "gs"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "gs":
        return str(request.getfixturevalue("bucket"))
    return str(tmp_path) if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def test_every_kind_of_path_works_alike(root: str) -> None:
    path = storage.join(root, "a/b.json")
    assert not storage.exists(path)
    assert storage.list_files(root) == []
    assert storage.sizes_bytes(root) == {}
    storage.write_json(path, {"x": 1})
    storage.write_manifest(path, "k")
    storage.write_bytes(storage.join(root, "empty"), b"")
    assert storage.read_json(path) == {"x": 1}
    assert storage.exists(storage.join(root, "a"))
    assert storage.is_done(path, "k")
    assert storage.list_files(root, ".json") == [path, path + ".manifest.json"]
    assert storage.sizes_bytes(root)["a/b.json"] == storage.size_bytes(path) == 12
    assert storage.sizes_bytes(root)["empty"] == 0
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(root, "none"))
    with pytest.raises(FileNotFoundError):
        storage.size_bytes(storage.join(root, "none"))
    storage.remove(path)
    storage.remove(path)
    assert not storage.is_done(path, "k")
    storage.remove(root)
    assert storage.list_files(root) == []


def test_files_and_folders_can_be_moved(root: str) -> None:
    old, new = storage.join(root, "old"), storage.join(root, "deep/new")
    for name in ("a", "b/c"):
        storage.write_bytes(storage.join(old, name), name.encode())
    storage.rename(storage.join(old, "a"), storage.join(root, "elsewhere/moved"))
    assert storage.read_bytes(storage.join(root, "elsewhere/moved")) == b"a"
    storage.rename(old, new)
    assert storage.read_bytes(storage.join(new, "b/c")) == b"b/c"
    assert not storage.exists(old)
    assert set(storage.sizes_bytes(root)) == {"elsewhere/moved", "deep/new/b/c"}


def test_many_manifests_at_once_are_those_of_single_files(root: str) -> None:
    folder = storage.join(root, "stage")
    names = ("whole", "other/whole", "cut", "lost", "unvouched", "never")
    paths = [storage.join(folder, name) for name in names]
    for path in paths[:-1]:
        storage.write_bytes(path, b"12345")
    for number, path in enumerate(paths[:4]):
        storage.write_manifest(path, f"k{number}")
    storage.write_bytes(paths[2], b"1234")
    storage.remove(paths[3])
    keys = [m and m["key"] for m in storage.read_manifests(folder, paths)]
    assert keys == ["k0", "k1", None, None, None, None]
    assert storage.read_manifests(folder, paths) == [storage.read_manifest(p) for p in paths]
    nothing = storage.join(root, "nothing")
    assert storage.read_manifests(nothing, [storage.join(nothing, "x")]) == [None]


def test_a_damaged_manifest_vouches_for_nothing(
    root: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = storage.join(root, "stage")
    paths = [storage.join(folder, name) for name in ("cut", "list")]
    for path, damage in zip(paths, (b'{"key": ', b"[]"), strict=True):
        storage.write_bytes(path, b"12345")
        storage.write_bytes(path + storage.MANIFEST_SUFFIX, damage)
    assert [storage.read_manifest(path) for path in paths] == [None, None]
    assert storage.read_manifests(folder, paths) == [None, None]
    assert f"{paths[0]}{storage.MANIFEST_SUFFIX}: is damaged" in caplog.text


def test_json_that_is_none_is_a_fault_of_the_input(root: str) -> None:
    path = storage.join(root, "step.json")
    for damage in (b"", b'{"key', b"\xff\xfe"):
        storage.write_bytes(path, damage)
        with pytest.raises(InputError, match=r"step\.json: is damaged.* remove it"):
            storage.read_json(path)
        assert storage.read_json_if_sound(path) is None
    assert storage.read_json_if_sound(storage.join(root, "none.json")) is None


def test_what_another_machine_writes_is_seen_at_once(bucket: str, emulator: str) -> None:
    other = small_cloud.Bucket({"STORAGE_EMULATOR_HOST": emulator})
    folder = bucket.removeprefix("gs://bucket/")
    storage.write_bytes(storage.join(bucket, "a"), b"1")
    assert storage.sizes_bytes(bucket) == {"a": 1}
    assert not storage.exists(storage.join(bucket, "b"))
    other.write(f"{folder}/b", b"12")
    other.write(f"{folder}/a", b"123")
    assert storage.exists(storage.join(bucket, "b"))
    assert storage.sizes_bytes(bucket) == {"a": 3, "b": 2}
    assert storage.size_bytes(storage.join(bucket, "a")) == 3


def test_threads_that_write_files_of_one_name_do_not_meet(root: str) -> None:
    both_open = threading.Barrier(2, timeout=20)

    def write(source: str) -> None:
        with storage.atomic_path(storage.join(root, source, "part-0")) as temporary:
            with open(temporary, "wb") as f:
                f.write(source.encode())
                f.flush()
                both_open.wait()

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(write, ("first", "second")))
    for source in ("first", "second"):
        assert storage.read_bytes(storage.join(root, source, "part-0")) == source.encode()


def test_a_bucket_that_cannot_be_written_says_so(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="Check that the bucket exists"):
        storage.write_bytes("gs://no-such-bucket/x", b"")

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(403, "no storage.objects.create access")

    with http.server.HTTPServer(("localhost", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://localhost:{server.server_port}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        gcsfs.core.GCSFileSystem.clear_instance_cache()
        with pytest.raises(InputError, match="your account may write to it"):
            storage.write_bytes(storage.join(bucket, "x"), b"")
        server.shutdown()


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    path = str(tmp_path / "a" / "data")
    with pytest.raises(KeyboardInterrupt), storage.atomic_path(path) as temporary:
        Path(temporary).write_text("half")
        kept = Path(temporary).rename(f"{temporary}.left")  # as a kill leaves it
        raise KeyboardInterrupt
    other = tmp_path / "attributes" / "stage" / kept.name
    other.parent.mkdir(parents=True)
    other.write_text("of a step that may be running")
    whole = tmp_path / "a" / "whole"
    whole.write_text("whole")
    storage.remove_temporaries(str(tmp_path))
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == [whole, other]


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


@pytest.mark.parametrize("remote", [False, True])
def test_a_range_of_a_file_is_read(tmp_path: Path, remote: bool) -> None:
    path = f"memory://{uuid.uuid4()}/file" if remote else str(tmp_path / "file")
    storage.write_bytes(path, bytes(range(100)))
    assert storage.read_range(path, 10, 5) == bytes(range(10, 15))
    assert storage.read_range(path, 98, 5) == bytes([98, 99])
    assert storage.read_range(path, 0, 0) == b""

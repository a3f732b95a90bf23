"""The store of answers: whatever a kill leaves, what was stored whole is found again."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
import uuid
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.synthesis import answer_files
from snowcoder_jax.synthesis.answer_files import INDEX_SUFFIX
from snowcoder_jax.synthesis.answers import AnswerIndex, AnswerStore, Spent, as_numbers
from snowcoder_jax.synthesis.requests import Answer, Finish, Request, Sampling, Seed
from snowcoder_jax.synthesis.stored_row import StoredRow, decode_line, encode_line


def row_of(number: int, finish: Finish = "stop", text: str = "text\né\ud800\0") -> StoredRow:
    key = f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}"
    seed = Seed(f"id{number}", "o/r", "a.py", "Python", "x = 1\n", 0.5, "MIT", 3, 4)
    request = Request(key, seed, "Improve:\nx = 1\nNow.", "v1", Sampling(64, 0.5, 0.9), number)
    answer = Answer(key, text, 7, finish, "context: long" if finish == "error" else "", 5, 1)
    return StoredRow(request, answer, "teacher")


ROWS = [row_of(i) for i in range(5)]


def store_rows(folder: str, rows: list[StoredRow], worker: int = 0) -> None:
    with AnswerStore(folder, worker) as store:
        for row in rows:
            store.append(row.request, row.answer, row.teacher)


def found(folder: str, rows: list[StoredRow]) -> list[StoredRow]:
    """Those of `rows` that the store has, as it has them."""
    index = AnswerIndex(folder)
    got = index.find([row.request.key for row in rows])
    assert len(got) == len(index)
    return [dataclasses.replace(row, seconds=0.0) for row in got.values()]


def same(some: list[StoredRow], others: list[StoredRow]) -> bool:
    return {repr(row) for row in some} == {repr(row) for row in others}


def data_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


@settings(deadline=None, max_examples=50)
@given(st.text(), st.text(), st.text(), st.booleans(), st.floats(0, 1e6))
def test_a_line_gives_its_row_back(
    before: str, seed_text: str, text: str, shown: bool, seconds: float
) -> None:
    row = row_of(1, text=text)
    seed = dataclasses.replace(row.request.seed, text=seed_text)
    prompt = before + (seed_text if shown else "") + text
    request = dataclasses.replace(row.request, seed=seed, prompt=prompt)
    row = StoredRow(request, row.answer, "teacher", round(seconds, 6))
    line = encode_line(row)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_line(line[:-1]) == row


@settings(deadline=None)
@given(st.data())
def test_a_changed_byte_makes_the_line_invalid(data: st.DataObject) -> None:
    line = bytearray(encode_line(ROWS[1])[:-1])
    index = data.draw(st.integers(0, len(line) - 1))
    line[index] ^= data.draw(st.integers(1, 255))
    assert decode_line(bytes(line)) is None


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_no_row(line: bytes) -> None:
    assert decode_line(line) is None


def test_a_file_cut_at_any_byte_keeps_its_whole_lines_and_takes_the_rest_anew(
    tmp_path: Path,
) -> None:
    store_rows(str(tmp_path), ROWS)
    (path,) = data_files(tmp_path)
    whole = path.read_bytes()
    for number, size in enumerate(range(0, len(whole), 41)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / path.name).write_bytes(whole[:size])
        # A line that lacks nothing but its line break is whole too.
        num_whole = whole[:size].count(b"\n") + (whole[size : size + 1] == b"\n")
        assert same(found(str(folder), ROWS), ROWS[:num_whole])
        store_rows(str(folder), ROWS[num_whole:])
        assert same(found(str(folder), ROWS), ROWS)


def test_an_index_made_while_a_file_grew_does_not_hide_what_came_later(tmp_path: Path) -> None:
    store = AnswerStore(str(tmp_path))
    for row in ROWS[:2]:
        store.append(row.request, row.answer, row.teacher)
    assert len(AnswerIndex(str(tmp_path))) == 2  # saves an index of two rows
    for row in ROWS[2:]:
        store.append(row.request, row.answer, row.teacher)
    # No close: the process is killed here.
    assert same(found(str(tmp_path), ROWS), ROWS)


@pytest.mark.parametrize("damage", [b"", b"PK no zip", b"cut"])
def test_a_damaged_index_is_made_again(tmp_path: Path, damage: bytes) -> None:
    store_rows(str(tmp_path), ROWS)
    path = Path(f"{data_files(tmp_path)[0]}{INDEX_SUFFIX}")
    path.write_bytes(path.read_bytes()[:200] if damage == b"cut" else damage)
    assert same(found(str(tmp_path), ROWS), ROWS)


def test_full_files_give_way_to_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_files, "MAX_FILE_BYTES", 2 * len(encode_line(ROWS[0])) - 10)
    store_rows(str(tmp_path), ROWS)
    assert [len(p.read_bytes().splitlines()) for p in data_files(tmp_path)] == [2, 2, 1]
    assert same(found(str(tmp_path), ROWS), ROWS)


def test_workers_write_beside_each_other(tmp_path: Path) -> None:
    one, other = AnswerStore(str(tmp_path), 0), AnswerStore(str(tmp_path), 1)
    for row in ROWS:
        (one if row.answer.key < "8" else other).append(row.request, row.answer, row.teacher)
    one.close()
    other.close()
    assert same(found(str(tmp_path), ROWS), ROWS)


def test_dead_letters_have_files_of_their_own_and_are_known_until_those_are_removed(
    tmp_path: Path,
) -> None:
    rows = [*ROWS, row_of(7, "error")]
    store_rows(str(tmp_path), rows)
    dead = [path for path in data_files(tmp_path) if path.name.startswith("dead-")]
    assert [decode_line(path.read_bytes()[:-1]).answer.error for path in dead] == ["context: long"]
    index = AnswerIndex(str(tmp_path))
    keys = as_numbers(row.request.key for row in rows)
    assert index.dead(keys).tolist() == [int(rows[-1].request.key, 16)]
    assert rows[-1].request.key in index
    dead[0].unlink()
    assert rows[-1].request.key not in AnswerIndex(str(tmp_path))
    assert same(found(str(tmp_path), rows), ROWS)


def test_a_key_that_was_stored_twice_has_one_answer_and_rather_than_a_dead_letter(
    tmp_path: Path,
) -> None:
    store_rows(str(tmp_path), [row_of(1, "error"), *ROWS])
    store_rows(str(tmp_path), [row_of(1, text="second")])
    assert len(AnswerIndex(str(tmp_path))) == len(ROWS)
    (row,) = AnswerIndex(str(tmp_path)).find([ROWS[1].request.key]).values()
    assert row.answer.finish == "stop"


def test_the_index_sums_what_some_keys_cost(tmp_path: Path) -> None:
    store_rows(str(tmp_path), ROWS)
    index = AnswerIndex(str(tmp_path))
    some = as_numbers([ROWS[0].request.key, ROWS[3].request.key, "00000000000000aa", "f" * 16])
    spent = index.spent(some)
    assert (spent.num_prompt_tokens, spent.num_tokens) == (10, 14)
    assert 0 <= spent.seconds < 10
    assert index.spent(np.array([], np.uint64)) == Spent()


def test_an_empty_store_has_nothing(tmp_path: Path) -> None:
    index = AnswerIndex(str(tmp_path / "nowhere"))
    keys = [ROWS[0].request.key]
    assert (len(index), keys[0] in index, index.find(keys)) == (0, False, {})
    assert index.dead(as_numbers(keys)).tolist() == []
    AnswerStore(str(tmp_path / "store")).close()
    assert not (tmp_path / "store").exists()


def test_a_row_that_changed_after_it_was_indexed_is_not_given_out(tmp_path: Path) -> None:
    store_rows(str(tmp_path), ROWS)
    (path,) = data_files(tmp_path)
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)
    with pytest.raises(MachineError, match="has changed since it was stored"):
        AnswerIndex(str(tmp_path)).find([row.request.key for row in ROWS])


def test_an_object_store_keeps_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_files, "REMOTE_BATCH_BYTES", 2 * len(encode_line(ROWS[0])) - 10)
    folder = f"memory://{uuid.uuid4()}"
    store = AnswerStore(folder)
    for row in ROWS:
        store.append(row.request, row.answer, row.teacher)
    assert same(found(folder, ROWS), ROWS[:4])  # a kill would cost the last
    store.close()
    assert same(found(folder, ROWS), ROWS)
    assert len(storage.list_files(folder, ".jsonl")) == 3


def test_an_object_store_gets_a_batch_that_is_old_though_no_other_answer_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer_files, "REMOTE_BATCH_SECONDS", 0.05)
    folder = f"memory://{uuid.uuid4()}"
    store = AnswerStore(folder)
    for row in ROWS[:2]:
        store.append(row.request, row.answer, row.teacher)
        deadline = time.monotonic() + 20
        while row.request.key not in AnswerIndex(folder):
            assert time.monotonic() < deadline, "nothing is stored"
            time.sleep(0.01)
    store.close()
    assert same(found(folder, ROWS), ROWS[:2])


def test_an_upload_that_failed_by_itself_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_files, "REMOTE_BATCH_SECONDS", 0.01)
    upload, tried = storage._upload, threading.Event()

    def fail(local: str, url: str) -> None:
        tried.set()
        raise OSError("no network")

    monkeypatch.setattr(storage, "_upload", fail)
    folder = f"memory://{uuid.uuid4()}"
    store = AnswerStore(folder)
    store.append(ROWS[0].request, ROWS[0].answer, "teacher")
    assert tried.wait(20)
    with pytest.raises(OSError, match="no network"):
        store.append(ROWS[1].request, ROWS[1].answer, "teacher")
    monkeypatch.setattr(storage, "_upload", upload)
    store.close()
    assert same(found(folder, ROWS), ROWS[:2])


def test_a_stop_during_the_last_upload_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    upload = storage._upload

    def interrupt(local: str, url: str) -> None:
        monkeypatch.setattr(storage, "_upload", upload)
        raise KeyboardInterrupt

    folder = f"memory://{uuid.uuid4()}"
    with pytest.raises(KeyboardInterrupt), AnswerStore(folder) as store:
        for row in ROWS:
            store.append(row.request, row.answer, row.teacher)
        monkeypatch.setattr(storage, "_upload", interrupt)
    assert same(found(folder, ROWS), ROWS)


@pytest.mark.parametrize("field", ["num_tokens", "num_prompt_tokens"])
@pytest.mark.parametrize("count", [-1, 2**32])
def test_a_row_whose_counts_cannot_be_indexed_counts_as_torn(
    tmp_path: Path, field: str, count: int
) -> None:
    store_rows(str(tmp_path), ROWS)
    (path,) = data_files(tmp_path)
    path.with_name(path.name + INDEX_SUFFIX).unlink()
    answer = dataclasses.replace(ROWS[1].answer, **{field: count})
    odd = encode_line(dataclasses.replace(ROWS[1], answer=answer))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], odd, *lines[2:]]))
    assert AnswerIndex(str(tmp_path)).num_torn_lines == 1
    assert same(found(str(tmp_path), ROWS), [ROWS[0], *ROWS[2:]])


def test_the_largest_count_is_kept_and_one_above_is_not_written(tmp_path: Path) -> None:
    answer = dataclasses.replace(ROWS[0].answer, num_tokens=2**32 - 1)
    with AnswerStore(str(tmp_path)) as store:
        store.append(ROWS[0].request, answer, "teacher")
        answer = dataclasses.replace(ROWS[1].answer, num_tokens=2**32)
        with pytest.raises(AssertionError, match="counted 4294967296 tokens"):
            store.append(ROWS[1].request, answer, "teacher")
    assert len(AnswerIndex(str(tmp_path))) == 1
    (path,) = data_files(tmp_path)
    assert path.read_bytes().count(b"\n") == 1


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        store_rows(str(tmp_path / "file"), ROWS)


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("has no /dev/full")
    store = AnswerStore(str(tmp_path))
    for worker_file in (store._answers, store._dead):
        worker_file._open = lambda: os.open("/dev/full", os.O_WRONLY)  # type: ignore[union-attr, method-assign]
    with pytest.raises(MachineError, match="disk is full"):
        store.append(ROWS[0].request, ROWS[0].answer, "teacher")

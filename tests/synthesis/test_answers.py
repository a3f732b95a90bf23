"""The log of answers: whatever a kill leaves of its last line, the lines before it are there."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.errors import InputError
from snowcoder_jax.synthesis.answers import REMOTE_BATCH, AnswerLog, decode_line, encode_line
from snowcoder_jax.synthesis.teachers import Answer

ANSWERS = [Answer(f"{i:016x}", f"text\n{i}é\ud800\0", i, "stop") for i in range(5)]


def write(folder: str, answers: list[Answer]) -> None:
    log = AnswerLog(folder)
    for answer in answers:
        log.append(answer)
    log.close()


@settings(deadline=None)
@given(st.text(), st.text(), st.integers(0, 10**9))
def test_a_line_gives_its_answer_back(key: str, text: str, num_tokens: int) -> None:
    answer = Answer(key, text, num_tokens, "error", text)
    line = encode_line(answer)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode_line(line[:-1]) == answer


@settings(deadline=None)
@given(st.data())
def test_a_changed_byte_makes_the_line_invalid(data: st.DataObject) -> None:
    line = bytearray(encode_line(ANSWERS[1])[:-1])
    index = data.draw(st.integers(0, len(line) - 1))
    line[index] ^= data.draw(st.integers(1, 255))
    assert decode_line(bytes(line)) is None


@settings(deadline=None)
@given(st.binary())
def test_any_bytes_are_no_line(line: bytes) -> None:
    assert decode_line(line) is None


def test_cut_at_any_byte_the_whole_lines_stay_and_the_log_goes_on() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(folder, ANSWERS)
        path = Path(folder) / "answers.jsonl"
        whole = path.read_bytes()
        for size in range(0, len(whole), 7):
            path.write_bytes(whole[:size])
            log = AnswerLog(folder)
            num_whole = whole[:size].count(b"\n")
            # A line that lacks nothing but its line break is whole too.
            num_whole += whole[size : size + 1] == b"\n"
            assert list(log.answers.values()) == ANSWERS[:num_whole]
            log.append(ANSWERS[4])
            log.close()
            assert AnswerLog(folder).answers[ANSWERS[4].key] == ANSWERS[4]


def test_an_object_store_keeps_them_in_parts() -> None:
    folder = f"memory://{uuid.uuid4()}"
    answers = [Answer(str(i), "t", 1, "stop") for i in range(REMOTE_BATCH + 3)]
    log = AnswerLog(folder)
    for answer in answers:
        log.append(answer)
    assert len(AnswerLog(folder).answers) == REMOTE_BATCH
    log.close()
    assert set(AnswerLog(folder).answers.values()) == set(answers)


def test_a_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        AnswerLog(str(tmp_path / "file"))

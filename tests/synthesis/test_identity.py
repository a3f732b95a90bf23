"""A teacher's fingerprint changes where its answers could, and nowhere else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from asking import make_ask

from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, ServerTeacher, VllmTeacher
from snowcoder_jax.synthesis.teachers.identity import (
    has_chat_template,
    teacher_fingerprint,
    teacher_name,
)
from snowcoder_jax.synthesis.teachers.make import make_teacher


def model_folder(folder: Path) -> Path:
    folder.mkdir()
    for name, text in {
        "config.json": "{}",
        "tokenizer.json": "{}",
        "tokenizer_config.json": "{}",
        "chat_template.jinja": "{{ messages }}",
        "model.safetensors": "weights",
        "README.md": "hello",
    }.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("name", "text", "is_another"),
    [
        ("config.json", "[]", True),
        ("tokenizer.json", "[]", True),
        ("chat_template.jinja", "{{ message }}s", True),
        ("model.safetensors", "more weights", True),
        ("model-2.safetensors", "", True),
        ("README.md", "bye", False),
    ],
)
def test_a_model_folder_goes_by_what_is_in_it(
    tmp_path: Path, name: str, text: str, is_another: bool
) -> None:
    folder = model_folder(tmp_path / "model")
    before = teacher_fingerprint(VllmTeacher(str(folder)))
    assert len(before) == 16
    folder = folder.rename(tmp_path / "elsewhere")
    assert teacher_fingerprint(VllmTeacher(str(folder))) == before
    (folder / name).write_text(text)
    assert (teacher_fingerprint(VllmTeacher(str(folder))) != before) == is_another


@pytest.mark.parametrize(
    ("changed", "is_another"),
    [
        ({"revision": "abc"}, True),
        ({"dtype": "float32"}, True),
        ({"mode": "completion"}, True),
        ({"model": "owner/other"}, True),
        ({"max_model_len": 4096}, False),
        ({"tensor_parallel": 4}, False),
        ({"max_in_flight": 8}, False),
        ({"gpu_memory_share": 0.5}, False),
        ({"dollars_per_hour": 2.0}, False),
    ],
)
def test_settings_of_vllm_count_where_they_change_answers(
    changed: dict[str, object], is_another: bool
) -> None:
    teacher = VllmTeacher("owner/model")
    other = dataclasses.replace(teacher, **changed)  # type: ignore[arg-type]
    assert (teacher_fingerprint(other) != teacher_fingerprint(teacher)) == is_another


def test_servers_may_be_exchanged_and_their_model_may_not() -> None:
    teacher = ServerTeacher("m", ("http://a",))
    same = ServerTeacher("m", ("http://b", "http://c"), max_in_flight=2, api_key_variable="K")
    assert teacher_fingerprint(same) == teacher_fingerprint(teacher)
    for changed in ({"model": "n"}, {"mode": "completion"}):
        other = dataclasses.replace(teacher, **changed)  # type: ignore[arg-type]
        assert teacher_fingerprint(other) != teacher_fingerprint(teacher)


def test_a_checkpoint_goes_by_the_step_that_trained_it() -> None:
    teacher = CheckpointTeacher("general")
    first, again, other, half = (
        teacher_fingerprint(settings, checkpoint_key=key, compute_dtype=dtype)
        for settings, key, dtype in (
            (teacher, "a", "float32"),
            (CheckpointTeacher("general", batch_size=4), "a", "float32"),
            (teacher, "b", "float32"),
            (teacher, "a", "bfloat16"),
        )
    )
    assert first == again
    assert len({first, other, half}) == 3


def test_names_tell_no_paths(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "tiny-coder")
    assert teacher_name(VllmTeacher(f"{folder}/")) == "tiny-coder"
    assert teacher_name(VllmTeacher("owner/model")) == "owner/model"
    assert teacher_name(ServerTeacher("m", ("http://a",))) == "m"
    assert teacher_name(CheckpointTeacher("general")) == "general"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"synthesis\.teacher\.model: .*nowhere is not there"):
        teacher_fingerprint(VllmTeacher(str(tmp_path / "nowhere")))


def test_a_chat_template_may_lie_in_three_places(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "model")
    assert has_chat_template(str(folder))
    (folder / "chat_template.jinja").unlink()
    assert not has_chat_template(str(folder))
    (folder / "tokenizer_config.json").write_text('{"chat_template": "x"}')
    assert has_chat_template(str(folder))
    (folder / "tokenizer_config.json").unlink()
    assert not has_chat_template(str(folder))
    (folder / "chat_template.json").write_text("{}")
    assert has_chat_template(str(folder))


@pytest.mark.parametrize("text", ["[]", '["chat_template"]', '{"chat_template": null}', "1"])
def test_a_configuration_without_a_template_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer_config.json").write_text(text)
    assert not has_chat_template(str(tmp_path))


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe\xff", b""])
def test_a_broken_configuration_is_told(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(data)
    with pytest.raises(InputError, match=r"tokenizer_config\.json: is no JSON"):
        has_chat_template(str(tmp_path))


def test_a_worker_refuses_another_model_than_was_meant(tmp_path: Path) -> None:
    teacher = VllmTeacher(str(model_folder(tmp_path / "model")))
    ask = make_ask(tmp_path, teacher=teacher)
    with pytest.raises(InputError, match="differs here from the model"):
        make_teacher(ask)

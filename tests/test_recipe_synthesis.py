"""Faults of the synthesis part of a recipe: each named with its field, before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from snowcoder_jax import preflight
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Recipe, load_recipe

LOCAL = "configs/local.yaml"
VLLM = "synthesis.teacher={kind: vllm, model: owner/name"
SERVER = "synthesis.teacher={kind: server, model: m, urls: [http://a:1]"
HOSTS = ("http://a..b", f"http://{'a' * 64}:1", "http://.:8000", "http://a b:1")

FAULTS = [
    ("synthesis.num_seeds=0", "synthesis.num_seeds", "Raise it"),
    ("synthesis.max_seed_bytes=0", "synthesis.max_seed_bytes", "Raise it"),
    ("synthesis.top_p=1.01", "synthesis.top_p", "up to 1"),
    ("synthesis.max_similarity=1.5", "synthesis.max_similarity", "up to 1"),
    ("synthesis.num_seeds=.nan", "synthesis.num_seeds", "whole number"),
    ("synthesis.num_seeds=.inf", "synthesis.num_seeds", "whole number"),
    (f"synthesis.temperature={'9' * 400}", "synthesis.temperature", "a number is wanted"),
    ("synthesis.temperature=.nan", "synthesis.temperature", "Give 0"),
    ("synthesis.temperature=.inf", "synthesis.temperature", "Give 0"),
    ("synthesis.temperature=-0.1", "synthesis.temperature", "Give 0"),
    ("synthesis.max_similarity=.nan", "synthesis.max_similarity", "Raise it"),
    ("synthesis.top_p=.nan", "synthesis.top_p", "Raise it"),
    ("synthesis.min_new_tokens=161", "synthesis.min_new_tokens", "lower it"),
    (f"{VLLM}, tensor_parallel: 0}}", "synthesis.teacher.tensor_parallel", "positive"),
    (f"{VLLM}, max_in_flight: 0}}", "synthesis.teacher.max_in_flight", "positive"),
    (f"{VLLM}, gpu_memory_share: 1.1}}", "synthesis.teacher.gpu_memory_share", "0.9"),
    (f"{VLLM}, max_model_len: 160}}", "synthesis.teacher.max_model_len", "no room"),
    (f"{VLLM}, max_model_len: 161}}", "synthesis.teacher.max_model_len", "Raise it to 5056 or"),
    (f"{VLLM}, max_model_len: 5055}}", "synthesis.teacher.max_model_len", "bytes to 12285, or"),
    (f"{VLLM}, dollars_per_hour: -1}}", "synthesis.teacher.dollars_per_hour", "no price"),
    (f"{VLLM}, modell: x}}", "synthesis.teacher.modell", "`model`"),
    (f"{SERVER}, max_in_flight: 0}}", "synthesis.teacher.max_in_flight", "positive"),
    (f"{SERVER}, timeout_seconds: 0}}", "synthesis.teacher.timeout_seconds", "positive"),
    (f"{SERVER}, timeout_seconds: .nan}}", "synthesis.teacher.timeout_seconds", "positive"),
    (
        f"{SERVER}, dollars_per_million_new_tokens: .inf}}",
        "synthesis.teacher.dollars_per_million_new_tokens",
        "no price",
    ),
    (
        "synthesis.teacher={kind: server, model: m, urls: []}",
        "synthesis.teacher.urls",
        "Name at least one",
    ),
    (
        "synthesis.teacher={kind: server, model: m, urls: ['a:1']}",
        "synthesis.teacher.urls",
        "like http://gpu-1:8000",
    ),
    (
        "synthesis.teacher={kind: server, model: m, urls: [http://a:1, http://a:1]}",
        "synthesis.teacher.urls[1]",
        "stands there twice",
    ),
    *(
        (
            f"synthesis.teacher={{kind: server, model: m, urls: [http://b:1, '{url}']}}",
            "synthesis.teacher.urls[1]",
            "like http://gpu-1:8000",
        )
        for url in ("http://[::1", "http://a:99999", "http://a:0", "http://a:x", "http://", *HOSTS)
    ),
]


@pytest.mark.parametrize(("override", "field", "mend"), FAULTS)
def test_each_fault_names_its_field_and_mend(override: str, field: str, mend: str) -> None:
    with pytest.raises(InputError) as caught:
        load_recipe(LOCAL, (override,))
    assert field in str(caught.value)
    assert mend in str(caught.value)


@pytest.mark.parametrize(
    "override",
    [
        "synthesis.num_seeds=null",
        "synthesis.top_p=1.0",
        "synthesis.temperature=0",
        "synthesis.teacher={kind: server, model: m, urls: ['http://[::1]:65535', 'https://h/x']}",
        f"synthesis.teacher={{kind: server, model: m, urls: ['http://{'a' * 63}.b.:1']}}",
        "synthesis.min_new_tokens=160",
        f"{VLLM}, max_model_len: 161, mode: completion, gpu_memory_share: 1.0}}",
        f"{VLLM}, max_model_len: 5056, dollars_per_hour: 0}}",
        f"{SERVER}, mode: completion, api_key_variable: TEACHER_API_KEY}}",
    ],
)
def test_the_last_good_value_before_a_fault_is_taken(override: str) -> None:
    load_recipe(LOCAL, (override,))


@pytest.mark.parametrize(
    "field",
    [
        "api_key_variable: 'sk-s3cret'",
        "urls: ['http://u:s3cret@a']",
        "urls: ['https://h/v1?api_key=s3cret']",
        "urls: ['https://h/v1#s3cret']",
        "urls: ['h/v1?api_key=s3cret']",
        "urls: ['http://a?s3cret', 'http://a?s3cret', 'http://[?s3cret']",
    ],
)
def test_a_secret_put_into_the_recipe_is_refused_and_not_repeated(field: str) -> None:
    teacher = {"model": "model: m", "urls": "urls: [http://a:1]"} | {field.split(":")[0]: field}
    with pytest.raises(InputError) as caught:
        load_recipe(LOCAL, (f"synthesis.teacher={{kind: server, {', '.join(teacher.values())}}}",))
    assert "s3cret" not in str(caught.value)
    assert "api_key_variable" in str(caught.value)


def faults_here(override: str) -> list[str]:
    recipe: Recipe = load_recipe(LOCAL, (override,))
    return [str(fault) for fault in preflight.teacher_faults(recipe)]


def test_the_shipped_teachers_have_no_fault_here() -> None:
    for name in ("local", "arctic_snowcoder_1b3", "arctic_snowcoder_7b", "continue_from_hf"):
        recipe = load_recipe(f"configs/{name}.yaml")
        assert [*preflight._prompt(recipe), *preflight.teacher_faults(recipe)] == []


def test_a_model_folder_is_looked_at(tmp_path: Path) -> None:
    teacher = f"synthesis.teacher={{kind: vllm, model: {tmp_path}"
    (fault,) = faults_here(f"{teacher}}}")
    assert "has no config.json" in fault
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    (fault,) = faults_here(f"{teacher}}}")
    assert "synthesis.teacher.model" in fault
    assert "no chat template" in fault
    assert faults_here(f"{teacher}, mode: completion}}") == []
    (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    assert faults_here(f"{teacher}}}") == []
    (tmp_path / "tokenizer_config.json").write_text("{")
    (fault,) = faults_here(f"{teacher}}}")
    assert "tokenizer_config.json: is no JSON" in fault


def test_the_key_of_the_servers_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = f"{SERVER}, api_key_variable: TEACHER_API_KEY}}"
    monkeypatch.delenv("TEACHER_API_KEY", raising=False)
    (fault,) = faults_here(teacher)
    assert "the environment has no TEACHER_API_KEY" in fault
    monkeypatch.setenv("TEACHER_API_KEY", "k")
    assert faults_here(teacher) == []


def test_a_template_that_is_not_there_is_told_before_any_work() -> None:
    recipe = load_recipe(LOCAL, (f"{VLLM}}}", "synthesis.prompt=no/such.yaml"))
    (fault,) = preflight._prompt(recipe)
    assert "no/such.yaml" in str(fault)

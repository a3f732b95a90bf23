"""The synthesis step end to end: what it writes, what it says, and what a kill costs."""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import scripted_teacher as scripted
from scripted_teacher import ScriptedTeacher

from beam_pipelines import documents
from snowcoder_jax import parquet, storage
from snowcoder_jax import recipe as recipes
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import decoder
from snowcoder_jax.synthesis import generate
from snowcoder_jax.synthesis.answers import AnswerLog
from snowcoder_jax.synthesis.prompts import Request, Sampling, completion_requests
from snowcoder_jax.synthesis.teachers import CheckpointTeacher, Teacher, make_teacher

NUM_SEEDS = 44
TOKENIZER = scripted.byte_tokenizer()
SYNTHETIC = "synthetic/part-00000.parquet"


def run(folder: Path | str, teacher: Teacher, key: str = "k", **settings: Any) -> dict[str, Any]:
    return generate.synthesize(
        scripted.small_recipe(**{"head_tokens": 250, **settings}),
        seed_documents=scripted.seed_documents(NUM_SEEDS),
        teacher=teacher,
        tokenizer=TOKENIZER,
        contamination=scripted.ContainsLine(),
        folder=str(folder),
        key=key,
        on_progress=lambda done, total, note: None,
    )


def outputs(folder: Path) -> dict[str, bytes]:
    """Every output by its path; the log is in order of arrival, so it is none."""
    files = [p for p in folder.rglob("*") if p.is_file() and p.name != "answers.jsonl"]
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_the_corpus_has_the_layout_of_any_other(tmp_path: Path) -> None:
    facts = run(tmp_path, ScriptedTeacher())
    shards = documents.list_shards(str(tmp_path))
    assert [s.relative for s in shards] == [SYNTHETIC]
    assert documents.stage_done(str(tmp_path / "attributes" / "synthesis"), "k")
    table = parquet.read_table(str(tmp_path / "documents" / SYNTHETIC))
    beside = parquet.read_table(str(tmp_path / "attributes" / "synthesis" / SYNTHETIC))
    assert table.schema.equals(documents.DOCUMENT_SCHEMA)
    assert beside.schema.names[:5] == ["id", *(f.name for f in documents.VERDICT_FIELDS)]
    assert table["id"].equals(beside["id"])
    seeds = {d.id: d for d in scripted.seed_documents(NUM_SEEDS)}
    for row, attribute in zip(table.to_pylist(), beside.to_pylist(), strict=True):
        seed = seeds[attribute["seed_id"]]
        assert (row["repo"], row["license"]) == ("synthetic/scripted", "MIT")
        assert row["path"].startswith(seed.path.removesuffix(".py"))
        head = row["content"].encode()[: attribute["head_bytes"]].decode()
        assert seed.text.startswith(head)
        compile(row["content"], "content", "exec")
        assert attribute["verdict"] == "pass"
        assert attribute["new_tokens"] == len(row["content"].encode()) - attribute["head_bytes"]
    assert facts["accepted"] == table.num_rows == len(set(table["id"].to_pylist()))
    for path in ("documents", "attributes/synthesis"):
        assert storage.is_done(str(tmp_path / path / SYNTHETIC), "k")


def test_an_object_store_holds_the_same_corpus(tmp_path: Path) -> None:
    folder = f"memory://{uuid.uuid4()}"
    facts = run(folder, ScriptedTeacher())
    assert facts == run(tmp_path, ScriptedTeacher())
    for path in ("documents", "attributes/synthesis"):
        shard = storage.join(folder, path, SYNTHETIC)
        assert storage.read_bytes(shard) == (tmp_path / path / SYNTHETIC).read_bytes()


def test_every_answer_is_accounted_for(tmp_path: Path) -> None:
    facts = run(tmp_path, ScriptedTeacher())
    assert facts["requests"] == NUM_SEEDS == facts["accepted"] + sum(facts["reasons"].values())
    assert facts["yield"] == facts["accepted"] / NUM_SEEDS
    assert set(facts["reasons"]) >= {
        "empty", "unparsable", "too_short", "repetition", "copy_of_seed", "copy_of_other",
        "contaminated", "error",
    }  # fmt: skip
    assert sum(facts["finish"].values()) == NUM_SEEDS
    assert facts["finish"]["error"] == facts["reasons"]["error"]
    assert sum(facts["cut_off"].values()) < facts["finish"]["length"]
    assert set(facts["samples"]) == {"accepted", *facts["reasons"]}
    assert all(1 <= len(samples) <= 3 for samples in facts["samples"].values())
    rejected = pq.read_table(tmp_path / "rejected.parquet").to_pylist()
    assert Counter(r["reason"] for r in rejected) == facts["reasons"]
    details = {r["reason"]: r["detail"] for r in rejected}
    assert details["error"] == "400: the prompt is too long"
    assert details["contaminated"] == scripted.BENCHMARK_LINE
    table = pq.read_table(tmp_path / "documents" / SYNTHETIC)
    num_bytes = sum(len(c.encode()) for c in table["content"].to_pylist())
    assert facts["tokens"]["kept"] + facts["tokens"]["copied"] == num_bytes
    assert storage.read_json(str(tmp_path / "synthesis.json")) == facts


def test_the_order_of_the_answers_changes_no_byte(tmp_path: Path) -> None:
    results = []
    for order_seed in (0, 1, 2):
        folder = tmp_path / str(order_seed)
        run(folder, ScriptedTeacher(order_seed))
        results.append(outputs(folder))
    assert results[0] == results[1] == results[2]


def test_what_is_done_is_not_asked_again_and_another_key_only_judges_again(tmp_path: Path) -> None:
    facts = run(tmp_path, ScriptedTeacher())
    for key, settings in (("k", {}), ("other", {"min_new_tokens": 1})):
        teacher = ScriptedTeacher()
        again = run(tmp_path, teacher, key, **settings)
        assert teacher.asked == []
        assert again["key"] == key
        assert (again == facts) == (key == "k")
    assert "too_short" not in again["reasons"]


def test_a_lost_output_is_written_again(tmp_path: Path) -> None:
    run(tmp_path, ScriptedTeacher())
    before = outputs(tmp_path)
    (tmp_path / "documents" / SYNTHETIC).unlink()
    run(tmp_path, ScriptedTeacher())
    assert outputs(tmp_path) == before


def test_killed_twice_it_asks_only_for_what_is_missing(tmp_path: Path) -> None:
    folder, asked_file = tmp_path / "killed", tmp_path / "asked"
    asked_file.touch()
    program = [sys.executable, scripted.__file__, str(folder), str(asked_file)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    answered: set[str] = set()
    for num_wanted in (7, 25):
        num_before = len(asked_file.read_text().split())
        with subprocess.Popen([*program, "0.02"], env=environment) as process:
            deadline = time.monotonic() + 60
            while len(asked_file.read_text().split()) < num_wanted:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        asked = asked_file.read_text().split()[num_before:]
        assert not answered & set(asked)
        log = AnswerLog(str(folder))
        log.close()
        answered = set(log.answers)
        # What the teacher was at when it died is all that may be lost.
        assert len(set(asked) - answered) <= 1
        with open(folder / "answers.jsonl", "ab") as f:
            f.write(b'{"error": "", "fin')
    assert not (folder / "synthesis.json").exists()
    num_before = len(asked_file.read_text().split())
    subprocess.run([*program, "0"], env=environment, check=True, capture_output=True)
    asked = asked_file.read_text().split()[num_before:]
    assert len(set(asked)) == len(asked) == NUM_SEEDS - len(answered)
    run(tmp_path / "whole", ScriptedTeacher())
    assert outputs(folder) == outputs(tmp_path / "whole")


def test_nothing_accepted_says_why_and_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        run(tmp_path, ScriptedTeacher(kinds=(3, 7)))
    for word in ("unparsable: ", "num_seeds", "max_new_tokens", "min_new_tokens", "train"):
        assert word in str(caught.value)
    assert not (tmp_path / "synthesis.json").exists()
    assert not (tmp_path / "documents").exists()
    assert pq.read_table(tmp_path / "rejected.parquet").num_rows == NUM_SEEDS


def test_no_usable_seed_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"synthesis.seeds: none of the 44 .*short: 44"):
        run(tmp_path, ScriptedTeacher(), head_tokens=3)


def tiny_teacher() -> CheckpointTeacher:
    config = recipes.Model(
        hidden_dim=16,
        mlp_dim=32,
        num_layers=1,
        num_heads=2,
        num_kv_heads=2,
        head_dim=8,
        max_sequence_length=256,
    )
    return CheckpointTeacher(
        decoder.init_params(config, TOKENIZER.vocab_size, 0),
        config,
        TOKENIZER,
        name="tiny",
        fingerprint="f",
        batch_size=4,
        compute_dtype="float32",
    )


def test_an_untrained_model_is_refused_with_reasons_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unparsable: "):
        run(tmp_path, tiny_teacher(), head_tokens=100, max_new_tokens=12, num_seeds=6)
    rejected = pq.read_table(tmp_path / "rejected.parquet").to_pylist()
    assert len(rejected) == 6
    assert any(r["text"] for r in rejected)


def some_requests() -> tuple[Request, ...]:
    return completion_requests(
        scripted.seed_documents(7),
        tokenizer=TOKENIZER,
        teacher_fingerprint="f",
        sampling=Sampling(12, 1.0, 0.9),
        head_tokens=100,
        seed=0,
    ).requests


def test_a_checkpoint_answers_each_request_by_itself() -> None:
    asked = some_requests()
    teacher = tiny_teacher()
    answers = {a.key: a for a in teacher.answers(asked)}
    assert set(answers) == {r.key for r in asked}
    assert all(a.finish in ("stop", "length") and a.num_tokens <= 12 for a in answers.values())
    assert len({a.text for a in answers.values()}) == 7
    few = random.Random(0).sample(asked, 3)
    assert all(answers[a.key] == a for a in teacher.answers(iter(few)))


def test_a_prompt_that_does_not_fit_fails_alone() -> None:
    asked = list(some_requests())
    long_ids = (asked[0].prompt_ids * 9)[:245]
    asked[0] = dataclasses.replace(asked[0], prompt_ids=long_ids)
    answers = {a.key: a for a in tiny_teacher().answers(asked)}
    assert answers[asked[0].key].finish == "error"
    assert answers[asked[0].key].error == "257 tokens exceed the model's 256"
    others = tiny_teacher().answers(asked[1:])
    assert {a.key: a for a in others} == {k: a for k, a in answers.items() if k != asked[0].key}


def test_a_recipe_that_asks_for_vllm_is_told_what_it_can_have() -> None:
    recipe = scripted.small_recipe(teacher=recipes.VllmTeacher("model"))

    def load_checkpoint(phase: str) -> tuple[decoder.Params, str]:
        raise AssertionError("nothing may be loaded")

    with pytest.raises(InputError, match="kind: checkpoint"):
        make_teacher(recipe, TOKENIZER, load_checkpoint)


def test_a_teacher_that_replies_to_instructions_is_refused(tmp_path: Path) -> None:
    teacher = ScriptedTeacher()
    teacher.mode = "instruct"
    with pytest.raises(InputError, match="kind: checkpoint"):
        run(tmp_path, teacher)

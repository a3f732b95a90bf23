"""The runner asks for what the store does not have, and tells what became of all."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from asking import ListTeacher, make_ask, requests_of, write_seeds

from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe_synthesis import VllmTeacher
from snowcoder_jax.synthesis import meter, runner, seed_parts
from snowcoder_jax.synthesis.answers import AnswerIndex, AnswerStore
from snowcoder_jax.synthesis.ask import load_ask
from snowcoder_jax.synthesis.first_failures import MAX_FAILED
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.synthesis.seeds import SEED_SCHEMA, seed_hash

NUM_SEEDS = 150


def ask_of(root: Path, **synthesis: object) -> runner.Ask:
    write_seeds(root / "seeds", NUM_SEEDS)
    return make_ask(root, **synthesis)


def test_all_is_asked_once_and_stored_with_its_seed(tmp_path: Path) -> None:
    ask, teacher = ask_of(tmp_path), ListTeacher()
    facts = runner.ask_all(ask, teacher)
    requests = requests_of(ask)
    assert sorted(teacher.asked) == sorted(request.key for request in requests)
    rows = AnswerIndex(ask.store).find(teacher.asked)
    assert {key: row.request for key, row in rows.items()} == {r.key: r for r in requests}
    assert {row.answer.text for row in rows.values()} == {f"text of {r.key}" for r in requests}
    assert (facts["requests"], facts["answered"], facts["missing"]) == (NUM_SEEDS, NUM_SEEDS, 0)
    assert facts["spent"]["new_tokens"] == 10 * NUM_SEEDS
    assert facts["spent"]["prompt_tokens"] == 20 * NUM_SEEDS


def test_after_a_death_only_the_rest_is_asked(tmp_path: Path) -> None:
    ask, dying, next_one = ask_of(tmp_path), ListTeacher(num_answers=60), ListTeacher()
    with pytest.raises(RuntimeError, match="died"):
        runner.ask_all(ask, dying)
    assert runner.summarize(ask)["missing"] == NUM_SEEDS - 60
    runner.ask_all(ask, next_one)
    assert len(next_one.asked) == NUM_SEEDS - 60
    assert not set(dying.asked) & set(next_one.asked)
    third = ListTeacher()
    runner.ask_all(ask, third)
    assert third.asked == []


def test_dead_letters_are_counted_and_not_asked_again_until_their_files_are_removed(
    tmp_path: Path,
) -> None:
    ask = ask_of(tmp_path)
    refused = {request.key for request in requests_of(ask)[:3]}
    facts = runner.ask_all(ask, ListTeacher(refused))
    assert (facts["answered"], facts["dead"]) == (NUM_SEEDS - 3, 3)
    assert facts["dead_letters"]["counts"] == {"context": 3}
    samples = facts["dead_letters"]["samples"]
    assert {sample["key"] for sample in samples} == refused
    assert samples[0]["error"] == "context: too long"
    assert samples[0]["path"].startswith("src/module_")
    again = ListTeacher()
    runner.ask_all(ask, again)
    assert again.asked == []
    for path in Path(ask.store).glob("dead-*.jsonl"):
        path.unlink()
    facts = runner.ask_all(ask, again)
    assert set(again.asked) == refused
    assert (facts["answered"], facts["dead"]) == (NUM_SEEDS, 0)


@pytest.mark.parametrize("num_seeds", [1, 10, MAX_FAILED, NUM_SEEDS])
def test_where_all_fails_there_are_no_dead_letters(tmp_path: Path, num_seeds: int) -> None:
    """A first trial of a few, with a setting that no prompt can meet."""
    ask = ask_of(tmp_path)
    teacher = ListTeacher(refused={request.key for request in requests_of(ask)})
    num_asked = min(num_seeds, MAX_FAILED)
    words = f"of the first {num_asked} requests none was answered .context: too long.*max_model_len"
    with pytest.raises(InputError, match=words):
        runner.ask_all(ask, teacher, limit=num_seeds)
    assert len(teacher.asked) == num_asked and teacher.is_stopped
    mended = ListTeacher()
    facts = runner.ask_all(ask, mended, limit=num_seeds)
    assert set(teacher.asked) <= set(mended.asked)
    assert (facts["answered"], facts["dead"]) == (num_seeds, 0)


def test_what_fails_of_a_rest_is_a_dead_letter(tmp_path: Path) -> None:
    ask = ask_of(tmp_path)
    keys = [request.key for request in requests_of(ask)]
    with pytest.raises(RuntimeError, match="died"):
        runner.ask_all(ask, ListTeacher(num_answers=NUM_SEEDS - 3))
    facts = runner.ask_all(ask, ListTeacher(refused=keys))
    assert (facts["answered"], facts["dead"], facts["missing"]) == (NUM_SEEDS - 3, 3, 0)


class LateTeacher(ListTeacher):
    """Holds its first answer back until it gets no more requests."""

    def _answers(self, requests: Iterable[Request]) -> Iterator[Answer]:
        answers = super()._answers(requests)
        first = next(answers, None)
        yield from answers
        if first is not None:
            yield first


@pytest.mark.parametrize("num_bad", [MAX_FAILED - 1, MAX_FAILED, NUM_SEEDS - 1])
def test_an_answer_that_comes_late_is_waited_for(tmp_path: Path, num_bad: int) -> None:
    ask = ask_of(tmp_path)
    keys = [request.key for request in requests_of(ask)]
    facts = runner.ask_all(ask, LateTeacher(refused=keys[1 : 1 + num_bad]))
    assert (facts["answered"], facts["dead"]) == (NUM_SEEDS - num_bad, num_bad)


def test_no_address_in_a_dead_letter_is_recorded(tmp_path: Path) -> None:
    address = "jane.roe@corp-mail.com"
    teacher = VllmTeacher("some/model")
    write_seeds(tmp_path / "seeds", 1, num_parts=1)
    part = tmp_path / "seeds" / "part-00000.parquet"
    table = pq.read_table(part)
    pq.write_table(table.set_column(table.column_names.index("path"), "path", [[address]]), part)
    ask = make_ask(tmp_path, teacher=teacher)
    (request,) = requests_of(ask)
    with AnswerStore(ask.store) as store:
        error = f"malformed: no text: {address}"
        store.append(request, Answer(request.key, "", 0, "error", error), "model")
    facts = runner.ask_from_run(
        str(tmp_path / "ask"),
        ask,
        recipe=None,  # type: ignore[arg-type]
        load_params=dict,
    )
    (letter,) = facts["dead_letters"]["samples"]
    assert (letter["path"], letter["error"]) == ("<EMAIL_1>", "malformed: no text: <EMAIL_1>")
    assert address not in str(facts)


def test_workers_share_the_requests_by_their_keys(tmp_path: Path) -> None:
    ask = ask_of(tmp_path)
    teachers = [ListTeacher() for _ in range(3)]
    for worker, teacher in enumerate(teachers):
        facts = runner.ask_all(ask, teacher, worker=worker, num_workers=3)
        assert facts["requests"] == facts["answered"] == len(teacher.asked)
        assert {int(key, 16) % 3 for key in teacher.asked} == {worker}
    asked = [key for teacher in teachers for key in teacher.asked]
    assert sorted(asked) == sorted(request.key for request in requests_of(ask))
    assert runner.summarize(ask)["answered"] == NUM_SEEDS


def test_a_limit_takes_the_seeds_drawn_first_and_the_rest_can_follow(tmp_path: Path) -> None:
    ask, few, rest = ask_of(tmp_path), ListTeacher(), ListTeacher()
    facts = runner.ask_all(ask, few, limit=20)
    assert (facts["seeds"], facts["requests"]) == (20, 20)
    draws = {
        row["id"]: row["draw"]
        for path in seed_parts.part_paths(ask.seeds)
        for row in seed_parts.parquet.read_table(path).to_pylist()
    }
    first = {key for key, _ in sorted(draws.items(), key=lambda item: item[1])[:20]}
    rows = AnswerIndex(ask.store).find(few.asked)
    assert {row.request.seed.id for row in rows.values()} == first
    runner.ask_all(ask, rest)
    assert len(rest.asked) == NUM_SEEDS - 20
    nobody = ListTeacher()
    assert runner.ask_all(ask, nobody, limit=0)["requests"] == 0
    assert runner.ask_all(ask, nobody, limit=10_000)["requests"] == NUM_SEEDS
    assert nobody.asked == []


def test_another_prompt_or_sampling_is_another_question_in_the_same_store(tmp_path: Path) -> None:
    ask, teacher = ask_of(tmp_path), ListTeacher()
    runner.ask_all(ask, teacher)
    for changed in ({"prompt": "rewrite"}, {"temperature": 0.1}):
        other = ListTeacher()
        synthesis = dataclasses.replace(ask.synthesis, **changed)
        runner.ask_all(dataclasses.replace(ask, synthesis=synthesis), other)
        assert len(other.asked) == NUM_SEEDS
        assert not set(other.asked) & set(teacher.asked)
    assert len(AnswerIndex(ask.store)) == 3 * NUM_SEEDS
    assert runner.summarize(ask)["answered"] == NUM_SEEDS


def test_progress_ends_within_the_total(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "PROGRESS_SECONDS", 0.0)
    ask = ask_of(tmp_path)
    runner.ask_all(ask, ListTeacher(), limit=50)
    told: list[tuple[int, int, str]] = []
    runner.ask_all(ask, ListTeacher(), on_progress=lambda *args: told.append(args))
    assert told[-1][:2] == (NUM_SEEDS, NUM_SEEDS)
    assert all(done <= total for done, total, _ in told)
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1][2].startswith("2 k tokens read, 1 k written of about 2 k tokens read")


def test_where_asking_is_stopped_the_teacher_is_stopped_and_what_came_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "PROGRESS_SECONDS", 0.0)
    ask, teacher = ask_of(tmp_path), ListTeacher()

    def interrupt(done: int, total: int, note: str) -> None:
        if done == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner.ask_all(ask, teacher, on_progress=interrupt)
    assert teacher.is_stopped
    assert len(AnswerIndex(ask.store)) == 40


def test_a_dry_run_shows_prompts_and_the_estimate_and_asks_nothing(tmp_path: Path) -> None:
    ask = ask_of(tmp_path)
    lines: list[str] = []
    runner.print_prompts(ask, 2, lines.append)
    text = "".join(lines)
    shown = [request for request in requests_of(ask) if request.key in text]
    assert len(shown) == 2
    assert all(request.prompt in text for request in shown)
    assert "150 seeds; about" in text
    assert not Path(ask.store).exists()
    teacher = VllmTeacher("m", dollars_per_hour=2.0)
    runner.print_prompts(ask_of(tmp_path, teacher=teacher), 0, lines.append)
    assert "dollars are told after the first answers" in lines[-1]


def test_the_estimate_is_made_from_seeds_of_all_repositories(tmp_path: Path) -> None:
    """Rows lie by repository, so the first ones may all be of one that is unlike the others."""
    (tmp_path / "seeds").mkdir()
    for part in range(20):
        rows = [
            {
                "id": f"id-{part}-{i}",
                "repo": "a/tiny" if i < 20 else "z/big",
                "path": f"m{i}.py",
                "language": "Python",
                "license": "MIT",
                "score": 0.0,
                "draw": seed_hash(0, f"id-{part}-{i}"),
                "text": "x = 1\n" if i < 20 else "value = compute(1, 2, 3)\n" * 400,
            }
            for i in range(100 if part else 20)
        ]
        table = pa.Table.from_pylist(rows, schema=SEED_SCHEMA)
        pq.write_table(table, tmp_path / "seeds" / f"part-{part:05d}.parquet", row_group_size=10)
    ask = make_ask(tmp_path, max_new_tokens=4_096)
    asked = runner._Requests(ask, None, 0, 1)
    of_all = meter.estimate_before(ask.synthesis, requests_of(ask), asked.num_seeds)
    assert asked.before().num_prompt_tokens == pytest.approx(of_all.num_prompt_tokens, rel=0.2)
    assert asked.before().num_tokens == pytest.approx(of_all.num_tokens, rel=0.2)
    few = seed_parts.sample_seeds(ask.seeds, 5)
    assert len(few) == 5
    assert seed_parts.sample_seeds(ask.seeds, 0) == []
    assert len(seed_parts.sample_seeds(ask.seeds, 10**6)) == asked.num_seeds


def test_an_ask_is_found_again_where_its_folders_were_moved(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    ask = ask_of(old)
    ask.save(str(old / "ask"))
    old.rename(new)
    moved = load_ask(str(new / "ask"))
    assert (moved.seeds, moved.store) == (str(new / "seeds"), str(new / "store"))
    assert runner.ask_all(moved, ListTeacher())["answered"] == NUM_SEEDS


def test_an_object_store_takes_the_answers_of_several_runs(tmp_path: Path) -> None:
    ask = dataclasses.replace(ask_of(tmp_path), store=f"memory://{uuid.uuid4()}")
    with pytest.raises(RuntimeError, match="died"):
        runner.ask_all(ask, ListTeacher(num_answers=60))
    rest = ListTeacher()
    facts = runner.ask_all(ask, rest)
    assert (facts["answered"], len(rest.asked)) == (NUM_SEEDS, NUM_SEEDS - 60)
    assert len(list(runner.stored_rows(ask))) == NUM_SEEDS


def test_no_seeds_are_a_fault_of_the_input(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no seeds"):
        runner.ask_all(make_ask(tmp_path), ListTeacher())

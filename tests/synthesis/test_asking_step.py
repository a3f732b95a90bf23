"""The step that asks, in a graph of its own: seeds by rote, a fake server, a small tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
from asking import write_seeds
from fake_server import FakeServer

from snowcoder_jax import cli, run, steps, storage
from snowcoder_jax.errors import EXIT_INPUT, InputError
from snowcoder_jax.progress import Progress
from snowcoder_jax.recipe import load_recipe
from snowcoder_jax.run import Facts
from snowcoder_jax.steps import asking
from snowcoder_jax.steps.builder import Builder
from snowcoder_jax.synthesis import prompts, runner, seed_parts
from snowcoder_jax.synthesis.answers import AnswerStore
from snowcoder_jax.synthesis.ask import load_ask
from snowcoder_jax.synthesis.requests import Answer
from snowcoder_jax.tokenizer import train

NUM_SEEDS = 30


def graph(root: Path, url: str, *overrides: str) -> Builder:
    teacher = f"synthesis.teacher={{kind: server, model: fake, urls: ['{url}']}}"
    b = Builder(load_recipe("configs/local.yaml", (f"output={root}", teacher, *overrides)))

    def tokenizer(folder: str, key: str, progress: Progress) -> Facts:
        train([f"def total_{i}(values):\n    return sum(values)\n" for i in range(99)], 290, folder)
        return {}

    def seeds(folder: str, key: str, progress: Progress) -> Facts:
        write_seeds(Path(folder), NUM_SEEDS)
        return {}

    b.add("tokenizer", inside=b.path("tokenizers"), params=None, work=tokenizer)
    b.add("synthesize seeds", inside=b.path("synthetic"), prefix="seeds-", params=1, work=seeds)
    asking.add_step(b)
    return b


def quiet(_line: str) -> None:
    pass


def test_the_step_asks_all_and_records_what_it_cost(tmp_path: Path) -> None:
    with FakeServer(log=tmp_path / "log") as server:
        b = graph(tmp_path, server.url)
        run.execute(b.steps, quiet)
        record = run.finished(b.steps[-1])
        assert record is not None
        assert (record["facts"]["answered"], record["facts"]["missing"]) == (NUM_SEEDS, 0)
        assert record["facts"]["spent"]["new_tokens"] > 0
        num_asked = len(server.asked())
        # What changes no question is no reason to pay again.
        again = graph(tmp_path, server.url, "synthesis.max_similarity=0.5")
        run.execute(again.steps, quiet)
        assert len(server.asked()) == num_asked == NUM_SEEDS
    ask = load_ask(b.named[asking.STEP])
    assert runner.summarize(ask)["answered"] == NUM_SEEDS
    assert "{{seed}}" in ask.template


def test_the_key_covers_what_changes_answers_and_nothing_else(tmp_path: Path) -> None:
    def key(url: str, *overrides: str) -> str:
        return graph(tmp_path, url, *overrides).steps[-1].key

    first = key("http://a:1")
    assert key("http://b:2", "synthesis.teacher.max_in_flight=3") == first
    assert key("http://a:1", "synthesis.teacher.dollars_per_million_new_tokens=3") == first
    others = ["teacher.model=other", "temperature=0.1", "prompt=rewrite", "max_similarity=0.5"]
    assert first not in {key("http://a:1", f"synthesis.{other}") for other in others}


def test_a_dry_run_prints_prompts_and_asks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(log=tmp_path / "log") as server:
        b = graph(tmp_path, server.url)
        before = asking.steps_before(b, asks=False)
        assert [step.name for step in before] == ["tokenizer", "synthesize seeds"]
        run.execute(before, quiet)
        asking.try_out(b, None, dry_run=True)
        assert server.asked() == []
    printed = capsys.readouterr().out
    assert printed.count("\ndef total_") == printed.count("--- ") == asking.NUM_SHOWN
    assert f"{NUM_SEEDS} seeds; about" in printed
    folder = printed.split("synthesis.worker ")[1].split()[0]
    assert load_ask(folder).synthesis == b.recipe.synthesis


def test_a_limit_asks_a_few_and_judges_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer(log=tmp_path / "log") as server:
        b = graph(tmp_path, server.url, "synthesis.min_new_tokens=1")
        run.execute(asking.steps_before(b, asks=True), quiet)
        asking.try_out(b, 7, dry_run=False)
        assert len(server.asked()) == 7
        printed = capsys.readouterr().out
        assert "7 answers, 0 dead letters" in printed
        assert "7 of 7 accepted" in printed
        assert run.finished(b.steps[-1]) is None
        run.execute(b.steps, quiet)
        assert len(server.asked()) == NUM_SEEDS


def test_answers_that_are_refused_are_counted_by_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeServer() as server:
        b = graph(tmp_path, server.url, "synthesis.min_new_tokens=160")
        run.execute(asking.steps_before(b, asks=True), quiet)
        asking.try_out(b, 4, dry_run=False)
    assert "0 of 4 accepted (4 too_short)" in capsys.readouterr().out


def vllm_graph(root: Path, *overrides: str) -> Builder:
    """A graph whose teacher is the model in `root/model`."""
    teacher = f"synthesis.teacher={{kind: vllm, model: {root}/model}}"
    return graph(root, "http://nobody:1", teacher, *overrides)


def write_model(root: Path) -> None:
    (root / "model").mkdir()
    for name in ("config.json", "tokenizer.json", "chat_template.jinja"):
        (root / "model" / name).write_text("{}")


def store_all(b: Builder) -> None:
    """Answers as workers elsewhere leave them, to all requests."""
    ask = asking.make_ask(b)
    requests = list(prompts.requests(ask, seed_parts.read_seeds(ask.seeds)))
    assert requests
    with AnswerStore(ask.store) as store:
        for request in requests:
            store.append(request, Answer(request.key, "x = 1\n", 5, "stop"), "elsewhere")


def test_where_all_is_answered_the_model_may_be_elsewhere(tmp_path: Path) -> None:
    write_model(tmp_path)
    first = vllm_graph(tmp_path)
    run.execute(asking.steps_before(first, asks=False), quiet)
    asking.try_out(first, 0, dry_run=True)
    store_all(first)
    (tmp_path / "model").rename(tmp_path / "unmounted")
    b = vllm_graph(tmp_path)
    assert b.named == first.named
    asking.require_teacher(b, b.steps)
    run.execute(b.steps, quiet)
    # Done, it needs the folder neither here nor there.
    (tmp_path / "unmounted").rename(tmp_path / "model")
    assert vllm_graph(tmp_path).named == first.named
    assert run.finished(vllm_graph(tmp_path).steps[-1]) is not None


def test_what_has_to_be_asked_is_refused_where_the_model_is_not(tmp_path: Path) -> None:
    write_model(tmp_path)
    first = vllm_graph(tmp_path)
    run.execute(asking.steps_before(first, asks=False), quiet)
    asking.try_out(first, 0, dry_run=True)
    (tmp_path / "model").rename(tmp_path / "unmounted")
    b = vllm_graph(tmp_path)
    with pytest.raises(InputError, match=r"model: .*has no config\.json"):
        asking.require_teacher(b, b.steps)
    with pytest.raises(InputError, match=r"has no config\.json"):
        asking.steps_before(b, asks=True)
    # What comes before the asking, and a look at the prompts, need it not.
    asking.require_teacher(b, b.steps[:-1])
    asking.steps_before(b, asks=False)


def test_a_model_that_never_was_here_stops_only_what_needs_it(tmp_path: Path) -> None:
    b = vllm_graph(tmp_path)
    asking.require_teacher(b, b.steps[:-1])
    run.execute(b.steps[:-1], quiet)
    for refused in (
        lambda: asking.require_teacher(b, b.steps),
        lambda: asking.steps_before(b, asks=False),
    ):
        with pytest.raises(InputError, match=r"has no config\.json"):
            refused()


def test_the_key_of_the_servers_is_wanted_where_something_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    b = graph(tmp_path, "http://nobody:1", "synthesis.teacher.api_key_variable=NO_SUCH_KEY")
    asking.require_teacher(b, b.steps[:-1])
    run.execute(b.steps[:-1], quiet)
    with pytest.raises(InputError, match="the environment has no NO_SUCH_KEY"):
        asking.require_teacher(b, b.steps)
    store_all(b)
    asking.require_teacher(b, b.steps)
    run.execute(b.steps, quiet)
    assert run.finished(b.steps[-1]) is not None


def test_removed_dead_letters_are_looked_for_in_one_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, noted = tmp_path / "store", tmp_path / "noted.json"
    store.mkdir()
    names = [f"dead-{i}.jsonl" for i in range(20)]
    for name in names:
        (store / name).write_text("")
    asking._note_dead_letters(str(noted), str(store))
    (store / names[3]).unlink()
    looked_for: list[str] = []
    exists = storage.exists
    monkeypatch.setattr(storage, "exists", lambda path: looked_for.append(path) or exists(path))
    assert asking._removed(str(noted), str(store)) == [names[3]]
    assert looked_for == [str(noted)]


def command(root: Path, *arguments: str) -> int:
    (root / "code").mkdir(exist_ok=True)
    (root / "code" / "a.py").write_text("x = 1\n")
    source = f"sources=[{{name: code, kind: folder, path: '{root}/code', license: MIT}}]"
    return cli.main(["synthesize", "configs/local.yaml", source, f"output={root}/out", *arguments])


def test_the_command_takes_a_dry_run_and_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(log=tmp_path / "log") as server:
        monkeypatch.setattr(steps, "build", lambda recipe: graph(tmp_path, server.url))
        assert command(tmp_path, "--dry-run", "--limit", "2") == 0
        assert capsys.readouterr().out.count("--- ") == 2
        assert server.asked() == []
        assert command(tmp_path, "--limit", "5") == 0
        assert "5 answers" in capsys.readouterr().out
        assert len(server.asked()) == 5
        assert command(tmp_path) == 0
        assert len(server.asked()) == NUM_SEEDS


def test_a_limit_below_0_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(tmp_path, "--limit", "-1") == EXIT_INPUT
    assert "--limit -1: is below 0" in capsys.readouterr().err


def test_the_command_refuses_to_ask_where_the_teacher_cannot_be_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "build", lambda recipe: vllm_graph(tmp_path))
    assert command(tmp_path) == EXIT_INPUT
    assert "has no config.json" in capsys.readouterr().err
    assert not (tmp_path / "synthetic").exists()


def test_a_check_looks_at_all_that_asking_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x = 1\n")
    write_model(tmp_path)
    (tmp_path / "model" / "chat_template.jinja").unlink()
    (tmp_path / "model" / "tokenizer_config.json").write_text("{")
    source = f"sources=[{{name: code, kind: folder, path: '{tmp_path}/code', license: MIT}}]"
    teacher = f"synthesis.teacher={{kind: vllm, model: {tmp_path}/model}}"
    arguments = ["check", "configs/local.yaml", source, f"output={tmp_path}/out"]
    assert cli.main([*arguments, teacher]) == EXIT_INPUT
    assert "tokenizer_config.json: is no JSON" in capsys.readouterr().err
    assert cli.main(arguments) == 0


def test_a_check_wants_no_teacher_where_all_is_answered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    key = "synthesis.teacher.api_key_variable=NO_SUCH_KEY"
    monkeypatch.setattr(steps, "build", lambda recipe: graph(tmp_path, "http://nobody:1", key))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x = 1\n")
    source = f"sources=[{{name: code, kind: folder, path: '{tmp_path}/code', license: MIT}}]"
    teacher = "synthesis.teacher={kind: server, model: fake, urls: [http://nobody:1]}"
    arguments = ["check", "configs/local.yaml", source, f"output={tmp_path}/out", teacher, key]
    assert cli.main(arguments) == EXIT_INPUT
    assert "the environment has no NO_SUCH_KEY" in capsys.readouterr().err
    monkeypatch.setenv("NO_SUCH_KEY", "sk-a\nsk-b")
    assert cli.main(arguments) == EXIT_INPUT
    assert "NO_SUCH_KEY holds line breaks" in capsys.readouterr().err
    b = graph(tmp_path, "http://nobody:1", key)
    run.execute(b.steps[:-1], quiet)
    store_all(b)
    assert cli.main(arguments) == 0
    assert cli.main([*arguments, "corpus.opt_out=/nowhere"]) == EXIT_INPUT
    told = capsys.readouterr().err
    assert "corpus.opt_out" in told and "NO_SUCH_KEY" in told

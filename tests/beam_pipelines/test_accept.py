"""Answers become a corpus: what is written, what is counted, what a kill costs."""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import samples
from small_corpus import TRAINING_TEXT

from beam_pipelines import accept as stage
from beam_pipelines import documents
from beam_pipelines.options import local_options
from snowcoder_jax import storage, tokenizer
from snowcoder_jax.errors import InputError, MachineError, plain_error
from snowcoder_jax.recipe import Sandbox
from snowcoder_jax.recipe_synthesis import CheckpointTeacher, ServerTeacher, Synthesis
from snowcoder_jax.synthesis import prompts, seed_parts
from snowcoder_jax.synthesis.answers import AnswerStore
from snowcoder_jax.synthesis.ask import Ask
from snowcoder_jax.synthesis.requests import Answer, Request, Seed
from snowcoder_jax.synthesis.seeds import SEED_SCHEMA

Row = dict[str, Any]
ROOT = Path(__file__).parent.parent.parent
KEY = "k"
NUM_SEEDS, NUM_PARTS = 33, 3
SEED_FACTS = {"wanted": {"Python": 40}, "drawn": {"Python": 33}, "unusable": {"C": 2}}


def fenced(text: str, tag: str = "python") -> str:
    return f"Here it is.\n\n```{tag}\n{text}\n```\n"


def reply(request: Request, kind: int) -> Answer:
    """Replies of an instruct model, good and bad."""
    good = samples.good_part(int(request.key, 16) % 1_000_003).strip()
    text, finish, error = {
        0: (fenced(good), "stop", ""),
        1: (fenced(good), "length", ""),
        2: (f"{fenced(good)}\n{fenced(good)}", "stop", ""),
        3: (fenced("def broken(:"), "stop", ""),
        4: ("", "error", "context: 9000 tokens and half a pair \ud83d"),
    }[kind]
    return Answer(request.key, text, len(text) // 3, finish, error, 7)  # type: ignore[arg-type]


def going_on(request: Request, kind: int) -> Answer:
    """Continuations of a base model."""
    good = samples.good_part(int(request.key, 16) % 1_000_003)
    text = [good, good + "\n\nx = (", "\n)]} while for", "", good][kind]
    return Answer(request.key, text, len(text) // 3, "stop" if kind != 1 else "length")


def kind_of(request: Request) -> int:
    return int(request.key, 16) % 5


class Asked:
    """An ask whose requests are all answered, in a folder of its own."""

    def __init__(
        self,
        root: Path,
        synthesis: Synthesis,
        answer: Callable[[Request, int], Answer],
        seeds: Sequence[Seed] | None = None,
        num_parts: int = NUM_PARTS,
    ) -> None:
        self.root = root
        seeds = [samples.make_seed(i) for i in range(NUM_SEEDS)] if seeds is None else seeds
        self.seeds = {seed.id: seed for seed in seeds}
        for number in range(num_parts):
            rows = [
                {**dataclasses.asdict(s), "draw": i}
                for i, s in enumerate(seeds)
                if i % num_parts == number
            ]
            table = pa.Table.from_pylist(rows, schema=SEED_SCHEMA)
            path = str(root / "seeds" / f"part-{number:05d}.parquet")
            documents.write_batches(path, SEED_SCHEMA, iter([table]), KEY)
        self.tokenizer = str(root / "tokenizer")
        tokenizer.train([TRAINING_TEXT], 300, self.tokenizer)
        folders = (str(root / "seeds"), str(root / "store"), self.tokenizer)
        self.ask = Ask(synthesis, 0, "teacher-1", *folders)
        self.ask.save(str(root / "ask"))
        self.requests = list(prompts.requests(self.ask, seed_parts.read_seeds(folders[0])))
        with AnswerStore(self.ask.store) as store:
            for request in reversed(self.requests):
                store.append(request, answer(request, kind_of(request)), "some/model")

    def run(self, folder: str = "out", workers: int = 1, key: str = KEY) -> Row:
        return stage.run(
            str(self.root / "ask"),
            tokenizer=self.tokenizer,
            sandbox=Sandbox(),
            seed_facts=SEED_FACTS,
            output=str(self.root / folder),
            key=key,
            options=local_options(workers),
        )

    def count_tokens(self, text: bytes) -> int:
        return len(tokenizer.Tokenizer.load(self.tokenizer).encode(text.decode()))

    def rows(self, inside: str, folder: str = "out") -> list[Row]:
        paths = storage.list_files(str(self.root / folder / inside), ".parquet")
        rows: list[Row] = pa.concat_tables([pq.read_table(p) for p in paths]).to_pylist()
        return rows

    def files(self, folder: str) -> dict[str, bytes]:
        root = self.root / folder
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


INSTRUCT = Synthesis(
    ServerTeacher("some/model", ("http://127.0.0.1:1",)), "best", max_seed_bytes=600
)
BASE = Synthesis(CheckpointTeacher("general"), "best", head_tokens=120)


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    asked = Asked(tmp_path_factory.mktemp("instruct"), INSTRUCT, reply)
    asked.run()
    return asked


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Asked:
    asked = Asked(tmp_path_factory.mktemp("base"), BASE, going_on)
    asked.run()
    return asked


def test_the_corpus_has_the_layout_of_any_other(instruct: Asked) -> None:
    out = str(instruct.root / "out")
    shards = documents.list_shards(out)
    assert [s.relative for s in shards] == [f"synthetic/part-{n:05d}.parquet" for n in range(3)]
    assert documents.stage_done(storage.join(out, "attributes", "synthesis"), KEY)
    for shard in shards:
        table = pq.read_table(storage.join(shard.documents, shard.relative))
        beside = pq.read_table(storage.join(out, "attributes", "synthesis", shard.relative))
        assert table.schema.equals(documents.DOCUMENT_SCHEMA)
        assert beside.schema.names[:5] == ["id", *(f.name for f in documents.VERDICT_FIELDS)]
        assert table["id"].equals(beside["id"])
        places = list(zip(table["language"].to_pylist(), table["path"].to_pylist(), strict=True))
        assert places == sorted(places)


def test_a_document_inherits_its_seeds_licence_and_tells_where_it_comes_from(
    instruct: Asked,
) -> None:
    requests = {r.key: r for r in instruct.requests}
    rows = instruct.rows("documents")
    assert len({r["id"] for r in rows}) == len(rows) > 0
    for row, beside in zip(rows, instruct.rows("attributes"), strict=True):
        request, seed = requests[beside["key"]], instruct.seeds[beside["seed_id"]]
        assert request.seed.id == seed.id
        assert (row["repo"], row["license"], row["language"]) == (
            "synthetic/some/model",
            "MIT",
            "Python",
        )
        assert row["path"] == seed.path.replace(".py", f".{request.key}.py")
        assert beside["prompt_version"].startswith("oss_instruct-")
        # The files are longer than what a teacher is shown of one.
        assert 1 <= beside["seed_first_line"] < beside["seed_last_line"]
        assert beside["verdict"] == "pass"
        assert beside["head_bytes"] == 0
        assert beside["new_tokens"] == instruct.count_tokens(row["content"].encode())
        compile(row["content"], "content", "exec")


def test_what_a_base_teacher_was_given_is_told_apart(base: Asked) -> None:
    rows = base.rows("documents")
    assert rows
    for row, beside in zip(rows, base.rows("attributes"), strict=True):
        content, head_bytes = row["content"].encode(), beside["head_bytes"]
        assert head_bytes > 20
        assert base.seeds[beside["seed_id"]].text.startswith(content[:head_bytes].decode())
        assert beside["new_tokens"] == base.count_tokens(content[head_bytes:])
    for row in base.rows("rejected"):
        assert base.seeds[row["seed_id"]].text.startswith(row["head"])


def test_every_request_is_accepted_or_refused_with_a_reason(instruct: Asked) -> None:
    facts = storage.read_json(str(instruct.root / "out" / "synthesis.json"))
    kinds = Counter(map(kind_of, instruct.requests))
    assert all(kinds[kind] for kind in range(5)), "the script has all kinds"
    assert facts["requests"] == NUM_SEEDS
    assert facts["accepted"] == kinds[0]
    assert facts["yield"] == kinds[0] / NUM_SEEDS
    assert facts["reasons"] == {
        "cut_off": kinds[1],
        "several_code_blocks": kinds[2],
        "unparsable": kinds[3],
        "error": kinds[4],
    }
    assert facts["cut_off"] == {"cut_off": kinds[1]}
    assert facts["finish"] == {
        "length": kinds[1],
        "error": kinds[4],
        "stop": kinds[0] + kinds[2] + kinds[3],
    }
    assert sum(facts["prompt_versions"].values()) == NUM_SEEDS
    assert facts["seeds"] == {
        "wanted": {"Python": 40},
        "drawn": {"Python": 33},
        "unusable_language": {"C": 2},
        "skipped": {},
    }
    kept = instruct.rows("attributes")
    assert facts["tokens"]["kept"] == sum(r["new_tokens"] for r in kept)
    assert facts["tokens"]["copied"] == 0
    refused = {r["key"]: r for r in instruct.rows("rejected")}
    assert set(refused) | {r["key"] for r in kept} == {r.key for r in instruct.requests}
    for request in instruct.requests:
        if kind_of(request) == 4:
            assert refused[request.key]["detail"] == "context: 9000 tokens and half a pair ?"


def test_seeds_without_a_request_are_counted(tmp_path: Path) -> None:
    seeds = [samples.make_seed(i) for i in range(6)]
    seeds[1] = dataclasses.replace(seeds[1], text="def broken(:\n" * 30)
    seeds[2] = dataclasses.replace(seeds[2], text="x = 1\n")
    asked = Asked(tmp_path, BASE, lambda r, kind: going_on(r, 0), seeds)
    facts = asked.run()
    assert facts["seeds"]["skipped"] == {"short": 1, "unparsable": 1}
    assert facts["requests"] == 4
    heads = [
        document["content"].encode()[: beside["head_bytes"]]
        for document, beside in zip(asked.rows("documents"), asked.rows("attributes"), strict=True)
    ]
    assert facts["tokens"]["copied"] == sum(map(asked.count_tokens, heads)) > 0


def test_the_same_bytes_with_two_workers_and_after_a_rerun(instruct: Asked) -> None:
    instruct.run("two", workers=2)
    before = instruct.files("out")
    assert instruct.files("two") == before
    # As after a kill: what is not vouched for is made again, the rest is left.
    for path in (instruct.root / "two").rglob("part-00001.parquet*"):
        path.unlink()
    (instruct.root / "two" / "synthesis.json").unlink()
    left = (instruct.root / "two/rejected/part-00000.parquet").stat().st_mtime_ns
    instruct.run("two")
    assert instruct.files("two") == before
    assert (instruct.root / "two/rejected/part-00000.parquet").stat().st_mtime_ns == left


@pytest.mark.slow
def test_kills_at_any_moment_change_no_byte(tmp_path: Path) -> None:
    seeds = [samples.make_seed(i) for i in range(400)]
    asked = Asked(tmp_path, BASE, going_on, seeds, num_parts=10)
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; import pathlib, test_accept as t\n"
        "asked = t.Asked.__new__(t.Asked); asked.root = pathlib.Path(sys.argv[1])\n"
        "asked.tokenizer = str(asked.root / 'tokenizer'); asked.run('killed')\n"
    )
    here = Path(__file__).parent
    folders = [str(tmp_path), str(here), str(here.parent / "synthesis"), str(ROOT)]
    killed = tmp_path / "killed"
    codes = []
    for num_done in (1, 4, 8):
        process = subprocess.Popen([sys.executable, "-c", program, *folders], cwd=ROOT)
        while len(list(killed.glob("rejected/*.json"))) < num_done and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        codes.append(process.wait())
    assert codes == 3 * [-signal.SIGKILL]
    # A run does this before it starts a step again.
    storage.remove_temporaries(str(killed))
    asked.run("killed")
    asked.run("whole")
    assert asked.files("killed") == asked.files("whole")


def test_an_answer_that_is_gone_stops_the_stage_with_a_mend(tmp_path: Path) -> None:
    asked = Asked(tmp_path, INSTRUCT, reply)
    for path in (tmp_path / "store").glob("dead-*"):
        path.unlink()
    with pytest.raises(Exception, match="answers are gone") as caught:
        asked.run()
    error = plain_error(caught.value)
    assert isinstance(error, MachineError)
    assert "step.json and start the same command again" in str(error)


def test_nothing_accepted_is_said_with_the_reasons(tmp_path: Path) -> None:
    asked = Asked(tmp_path, INSTRUCT, lambda request, kind: reply(request, 3))
    with pytest.raises(InputError, match=r"none of 33 answers of `some/model` .*unparsable: 33"):
        asked.run()
    assert len(asked.rows("rejected")) == NUM_SEEDS
    assert not (tmp_path / "out" / "synthesis.json").exists()


def test_no_request_at_all_is_said(tmp_path: Path) -> None:
    seeds = [samples.make_seed(i, text="x = 1\n") for i in range(4)]
    asked = Asked(tmp_path, BASE, going_on, seeds)
    with pytest.raises(InputError, match=r"no request was made of 4 seeds \(short: 4\)"):
        asked.run()


def test_a_python_file_that_does_not_run_is_refused_where_the_recipe_asks(tmp_path: Path) -> None:
    def answer(request: Request, kind: int) -> Answer:
        code = samples.good_part(int(request.key, 16) % 99).strip()
        fault = "\n\nraise ValueError('no')" if kind_of(request) % 2 else ""
        return Answer(request.key, fenced(code + fault), 9, "stop")

    seeds = [samples.make_seed(i) for i in range(6)]
    synthesis = dataclasses.replace(INSTRUCT, run_python=True)
    asked = Asked(tmp_path, synthesis, answer, seeds)
    facts = asked.run()
    num_faulty = sum(kind_of(r) % 2 for r in asked.requests)
    assert 0 < num_faulty < 6
    assert facts["reasons"] == {"does_not_run": num_faulty}

"""The steps from a selection to a synthetic corpus that can be packed; a fake server is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import samples
import yaml
from fake_server import FakeServer

from snowcoder_jax import preflight, run, storage, why
from snowcoder_jax.recipe import load_recipe
from snowcoder_jax.steps import asking, build
from snowcoder_jax.steps.builder import Builder
from snowcoder_jax.synthesis import prompts, seed_parts
from snowcoder_jax.synthesis.answers import AnswerStore
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.text.benchmarks import shipped_references

ROOT = Path(__file__).parent.parent.parent
NUM_FILES = 24
EMAIL = "jane.doe@harbour-works.org"


def quiet(_line: str) -> None:
    pass


def graph(root: Path, url: str, *overrides: str) -> Builder:
    plain = yaml.safe_load((ROOT / "configs/local.yaml").read_text())
    plain["output"] = str(root / "out")
    plain["sources"] = [
        {"name": "code", "kind": "folder", "path": str(root / "code"), "license": "Zlib"}
    ]
    plain["corpus"] = {"num_shards": 3, "heldout_share": 0.01, "rules": {"preset": "none"}}
    plain["tokenizer"] = {"vocab_size": 300, "sample_bytes": 100_000}
    plain["synthesis"] = {
        "teacher": {"kind": "server", "model": "fake", "urls": [url]},
        "seeds": "corpus",
        "min_new_tokens": 16,
    }
    for selection in plain["selections"]:
        # No annotator is needed here.
        selection["order"] = selection["order"].replace("quality", "random")
    path = root / "recipe.yaml"
    path.write_text(yaml.safe_dump(plain))
    return build(load_recipe(str(path), overrides))


def do(b: Builder, *names: str) -> None:
    run.execute(b.needed_by(names), quiet)


def write_sources(root: Path) -> None:
    for number in range(NUM_FILES):
        folder = root / "code" / f"repo{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        asks_for = "# fake=400\n" if number == 5 else "# fake=java\n" if number == 6 else ""
        (folder / f"m{number}.py").write_text(asks_for + samples.seed_text(number))


def replies(requests: list[Request]) -> Mapping[str, str]:
    """By key: what was written for some of the requests, before the server is asked."""
    reference = next(r for r in shipped_references() if r.part == "program")
    plain = [r for r in requests if "# fake=" not in r.prompt]
    # Of another seed's text, with a line that is new: near it, and not near its own seed.
    copied = plain[8].seed.text + "\n\nMORE = 17\n"
    texts = {
        "copy": copied,
        "contaminated": f"def first_part(a):\n    return a\n\n\n{reference.text}\n",
        "secret": samples.good_part(1).strip() + f'\nCONTACT = "{EMAIL}"\n',
        "twin": samples.good_part(2).strip() + "\n",
        "twin of it": samples.good_part(2).strip() + "\n\n",
    }
    return {r.key: text for r, text in zip(plain, texts.values(), strict=False)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Builder, Path, Mapping[str, str]]:
    root = tmp_path_factory.mktemp("steps")
    write_sources(root)
    with FakeServer(log=root / "log") as server:
        b = graph(root, server.url)
        preflight.write_recipe(b.recipe, b.named)
        do(b, "synthesize seeds", "tokenizer")
        ask = asking.make_ask(b)
        requests = list(prompts.requests(ask, seed_parts.read_seeds(ask.seeds)))
        written = replies(requests)
        with AnswerStore(ask.store) as store:
            for request in requests:
                if request.key in written:
                    text = f"```python\n{written[request.key]}```\n"
                    store.append(request, Answer(request.key, text, 50, "stop"), "fake")
        do(b, "synthetic tokens", "synthetic policy")
        # A control question has the draw of another one.
        assert len({row["seed"] for row in server.asked()}) == NUM_FILES - len(written)
    return b, root, written


def rows(b: Builder, step: str, inside: str = "") -> list[dict[str, object]]:
    paths = storage.list_files(storage.join(b.named[step], inside), ".parquet")
    paths = [p for p in paths if "/attributes/" not in p[len(b.named[step]) :]]
    return [row for path in paths for row in pq.read_table(path).to_pylist()]


def policy_by_key(b: Builder) -> dict[object, tuple[object, object]]:
    keys = [r["key"] for r in rows(b, "synthesis columns")]
    judged = [(r["stage"], r["rule"]) for r in rows(b, "synthetic policy")]
    return dict(zip(keys, judged, strict=True))


def test_every_stage_judges_what_was_written(
    finished: tuple[Builder, Path, Mapping[str, str]],
) -> None:
    b, _, written = finished
    record = run.finished(next(s for s in b.steps if s.name == "synthesize"))
    assert record is not None
    facts = record["facts"]
    assert facts["reasons"] == {"error": 1, "wrong_language": 1}
    assert facts["requests"] == NUM_FILES
    assert facts["accepted"] == NUM_FILES - 2
    judged = policy_by_key(b)
    copy, contaminated, secret, twin, other = written
    assert judged[copy] == ("duplicates", "near_duplicate")
    assert judged[contaminated] == ("contamination", "contaminated")
    assert judged[secret] == (None, None)
    assert Counter(judged[k] for k in (twin, other)) == {
        (None, None): 1,
        ("duplicates", "exact_duplicate"): 1,
    }
    documents = rows(b, "synthesize", "documents")
    assert {d["license"] for d in documents} == {"Zlib"}
    spans = dict(
        zip(
            (r["key"] for r in rows(b, "synthesis columns")),
            (r["spans"] for r in rows(b, "synthetic secrets")),
            strict=True,
        )
    )
    assert spans[secret]
    tokens = rows(b, "synthetic tokens")
    assert len(tokens) == len(documents)


def test_why_tells_of_a_synthetic_document_where_it_comes_from(
    finished: tuple[Builder, Path, Mapping[str, str]],
) -> None:
    b, _, written = finished
    (copy,) = (r for r in rows(b, "synthesis columns") if r["key"] == next(iter(written)))
    text = why.explain(b.run_folder, str(copy["id"]))
    for stage in ("rules", "duplicates", "contamination", "policy"):
        assert f"\n  synthetic {stage} " in text
    assert "near_duplicate" in text
    origin = text.partition("\norigin\n")[2].partition("\n\n")[0]
    assert str(copy["key"]) in origin
    assert str(copy["prompt_version"]) in origin
    seed = next(d for d in rows(b, "ingest", "documents") if d["id"] == copy["seed_id"])
    assert f"{seed['repo']}/{seed['path']}" in origin
    assert "whole file" in origin
    # The one that is kept of its cluster is in the other corpus.
    cluster = text.partition("\ncluster\n")[2].partition("\n\n")[0]
    assert "(this one)" in cluster
    assert "kept" in cluster


def test_dead_letters_are_asked_again_where_their_files_are_removed(
    finished: tuple[Builder, Path, Mapping[str, str]],
) -> None:
    b, root, _ = finished
    first = b.named["synthesize"]
    with FakeServer(log=root / "log2") as server:
        again = graph(root, server.url)
        do(again, "synthetic tokens")
        assert again.named["synthesize"] == first
        assert server.asked() == []
        (dead,) = Path(asking.make_ask(b).store).glob("dead-*.jsonl")
        dead.unlink()
        anew = graph(root, server.url)
        assert anew.named["synthesize"] != first
        do(anew, "synthetic tokens")
        assert len({row["seed"] for row in server.asked()}) == 1
        assert graph(root, server.url).named == anew.named
    assert len(rows(anew, "synthesize", "rejected")) == 2

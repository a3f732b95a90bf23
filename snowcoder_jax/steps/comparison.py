"""The step that measures how the synthetic documents differ from the selected ones."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from snowcoder_jax import parquet, storage
from snowcoder_jax.progress import Progress
from snowcoder_jax.run import Facts
from snowcoder_jax.steps.builder import Builder

if TYPE_CHECKING:
    from beam_pipelines.documents import Shard
    from beam_pipelines.texts import Mask
    from snowcoder_jax.reports.synthesis_comparison import Sampled

STEP = "synthetic comparison"
# Documents of each side; of those, synthetic ones that the annotator scores here (a CPU scores
# a few files a second).
NUM_DOCUMENTS = 1_000
NUM_SCORED = 200
_SCORED_AT_ONCE = 16
_PURPOSE = "comparison"
_CODE = (
    "snowcoder_jax/steps/comparison.py",
    "snowcoder_jax/reports/synthesis_comparison.py",
    "snowcoder_jax/text/grammars.py",
    "snowcoder_jax/text/lexing.py",
    "snowcoder_jax/text/parsing.py",
    "snowcoder_jax/text/words.py",
    "beam_pipelines/texts.py",
)


def add_steps(b: Builder) -> None:
    """Nothing is compared where nothing is synthetic."""
    if "synthesize" not in b.named:
        return
    synthesis = b.recipe.synthesis
    assert synthesis is not None, "recipe_checks lets no synthetic selection pass without one"
    names = ["synthesize", "synthetic policy", "synthetic secrets", "synthetic tokens"]
    names += ["ingest", "policy", "secrets", "tokens", f"select {synthesis.seeds}"]
    names += [n for n in ("synthetic duplicates", "duplicates", "annotator") if n in b.named]
    names += ["quality"] if "quality" in b.named else []

    def work(folder: str, key: str, progress: Progress) -> Facts:
        facts = compare(b, progress)
        storage.write_json(storage.join(folder, "comparison.json"), facts)
        return {name: side["sampled"] for name, side in facts["sides"].items()}

    b.add(
        STEP,
        inside=storage.join(b.named["synthesize"], "comparison"),
        params=(NUM_DOCUMENTS, NUM_SCORED, b.recipe.seed),
        reads=tuple(b.named[name] for name in names),
        code=_CODE,
        work=work,
    )


def compare(b: Builder, progress: Progress) -> dict[str, Any]:
    """Draw, read and measure all sides (`synthesis_comparison.compare` has the result).

    The other sides are drawn with the shares of languages that the synthetic sample has, as far
    as they have enough, so that no difference is one of languages.
    """
    from beam_pipelines import texts
    from snowcoder_jax.reports.synthesis_comparison import Side
    from snowcoder_jax.reports.synthesis_comparison import compare as compare_sides

    synthesis = b.recipe.synthesis
    assert synthesis is not None
    choices: dict[str, tuple[str, Callable[[Shard], Mask]]] = {
        "synthetic": ("synthetic ", texts.in_split(b.named["synthetic policy"], "train")),
        "selected": ("", texts.selected(b.named[f"select {synthesis.seeds}"])),
        "corpus": ("", texts.in_split(b.named["policy"], "train")),
    }
    sides: list[Side] = []
    quotas: Mapping[str, int] | None = None
    for name, (prefix, choose) in choices.items():
        corpus = b.named["synthesize" if prefix else "ingest"]
        drawn, num_documents = draw(corpus, choose, quotas, b.recipe.seed)
        side = Side(name, num_documents)
        for document in _read(b, prefix, corpus, drawn):
            side.add(document)
            progress.update(len(side), len(drawn), f"measuring {name} documents")
        if quotas is None:
            times = max(1, NUM_DOCUMENTS // max(1, len(side)))
            quotas = {language: n * times for language, n in side.languages.items()}
        sides.append(side)
    duplicates = {
        name: _dropped(b.named[step])
        for name, step in (("synthetic", "synthetic duplicates"), ("corpus", "duplicates"))
        if step in b.named
    }
    return {"seeds": synthesis.seeds, **compare_sides(sides, b.recipe.seed, duplicates)}


def draw(
    corpus: str, choose: Callable[[Shard], Mask], quotas: Mapping[str, int] | None, seed: int
) -> tuple[dict[str, float], int]:
    """The chosen documents of the smallest seeded hashes, and how many there are to choose from.

    Args:
      quotas: documents of each language; None: `NUM_DOCUMENTS` in all, of any.

    Returns:
      id -> seeded hash, and the number of documents that were chosen from.
    """
    from beam_pipelines import documents

    heaps: dict[str, list[tuple[float, str]]] = {}
    num_documents = 0
    for shard in documents.list_shards(corpus):
        table = parquet.read_table(
            storage.join(shard.documents, shard.relative), ["id", "language"]
        ).filter(pa.array(choose(shard)))
        num_documents += table.num_rows
        rows = zip(table["id"].to_pylist(), table["language"].to_pylist(), strict=True)
        for identity, language in rows:
            bucket = "" if quotas is None else language
            size = NUM_DOCUMENTS if quotas is None else quotas.get(language, 0)
            heap = heaps.setdefault(bucket, [])
            # The largest hash is on top, to be pushed out.
            entry = (-storage.seeded_share(seed, _PURPOSE, identity), identity)
            if len(heap) < size:
                heapq.heappush(heap, entry)
            elif heap and entry > heap[0]:
                heapq.heapreplace(heap, entry)
    return {i: -order for heap in heaps.values() for order, i in heap}, num_documents


def _read(b: Builder, prefix: str, corpus: str, drawn: Mapping[str, float]) -> Iterator[Sampled]:
    """The drawn documents with what other stages know of them."""
    from beam_pipelines import documents, texts
    from snowcoder_jax.reports.synthesis_comparison import Sampled

    wanted = pa.array(sorted(drawn), pa.string())
    num_tokens: dict[str, int] = {}
    scores: dict[str, float] = {}
    given: dict[str, int] = {}
    columns: list[tuple[str, str, dict[str, Any]]] = [
        (f"{prefix}tokens", "num_tokens", num_tokens),
    ]
    if prefix:
        columns.append(("synthesis columns", "head_bytes", given))
    elif "quality" in b.named:
        columns.append(("quality", "score", scores))
    for shard in documents.list_shards(corpus):
        for step, name, values in columns:
            path = storage.join(b.named[step], shard.relative)
            table = parquet.read_table(path, ["id", name])
            table = table.filter(pc.is_in(table["id"], value_set=wanted))
            values.update(zip(table["id"].to_pylist(), table[name].to_pylist(), strict=True))

    def is_drawn(shard: Shard) -> Mask:
        ids = parquet.read_table(storage.join(shard.documents, shard.relative), ["id"])["id"]
        return np.asarray(pc.is_in(ids, value_set=wanted).to_numpy(), np.bool_)

    to_score: set[str] = set()
    if prefix and "annotator" in b.named:
        from snowcoder_jax.annotation.score import Scorer

        scorer = Scorer(b.named["annotator"])
        to_score = set(sorted(drawn, key=lambda i: (drawn[i], i))[:NUM_SCORED])
    read = texts.read_texts(corpus, b.named[f"{prefix}secrets"], is_drawn)
    while batch := list(itertools.islice(read, _SCORED_AT_ONCE)):
        scored = [d for d in batch if d.id in to_score]
        if scored:
            found, _ = scorer.score([d.text for d in scored])
            scores.update(zip((d.id for d in scored), found.tolist(), strict=True))
        for d in batch:
            yield Sampled(
                drawn[d.id],
                d.path,
                d.language,
                d.text,
                num_tokens.get(d.id) or 0,
                scores.get(d.id),
                given.get(d.id) or 0,
            )


def _dropped(folder: str) -> dict[str, int]:
    """Documents that a duplicates stage judged, and those it took out."""
    verdicts: Counter[str] = Counter()
    for path in storage.list_files(folder, ".parquet"):
        verdicts.update(parquet.read_table(path, ["verdict"])["verdict"].to_pylist())
    return {"documents": verdicts.total(), "dropped": verdicts.total() - verdicts["pass"]}

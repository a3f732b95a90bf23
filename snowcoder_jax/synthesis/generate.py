"""The synthesis step: ask what is missing, judge all answers, write the accepted as a corpus.

A synthesis folder holds `answers.jsonl` (or its parts), `documents/` and
`attributes/synthesis/` as any corpus has them, `rejected.parquet`, and `synthesis.json`, last.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from snowcoder_jax import storage
from snowcoder_jax.errors import InputError
from snowcoder_jax.recipe import Recipe, Synthesis
from snowcoder_jax.synthesis.accept import (
    CHECKABLE_LANGUAGES,
    Acceptance,
    ContaminationCheck,
    Limits,
    Verdict,
)
from snowcoder_jax.synthesis.answers import AnswerLog
from snowcoder_jax.synthesis.prompts import Request, Requests, Sampling, completion_requests
from snowcoder_jax.synthesis.seeds import SeedChoice, SeedDocument, choose_seeds
from snowcoder_jax.synthesis.teachers import Answer, Teacher
from snowcoder_jax.tokenizer import Tokenizer


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema(columns)


# The columns of any corpus, and those of a stage that judges (beam_pipelines.documents has the
# same; it may not be imported from here, and a test holds the two together).
DOCUMENT_SCHEMA = _schema(
    id=pa.string(),
    repo=pa.string(),
    path=pa.string(),
    language=pa.string(),
    license=pa.string(),
    stars=pa.int32(),
    content=pa.large_string(),
)
ATTRIBUTE_SCHEMA = _schema(
    id=pa.string(),
    verdict=pa.string(),
    rule=pa.string(),
    value=pa.float64(),
    threshold=pa.float64(),
    seed_id=pa.string(),
    head_bytes=pa.int64(),  # UTF-8 bytes at the start that were given, not written
    new_tokens=pa.int64(),
)
REJECTED_SCHEMA = _schema(
    key=pa.string(),
    seed_id=pa.string(),
    language=pa.string(),
    reason=pa.string(),
    value=pa.float64(),
    threshold=pa.float64(),
    head=pa.large_string(),
    text=pa.large_string(),  # all that the teacher wrote
    detail=pa.string(),  # the teacher's error; the benchmark that it repeats
)

SHARD = "synthetic/part-00000.parquet"
NUM_SAMPLES = 3
SAMPLE_CHARACTERS = 4_000

OnProgress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A request with its answer and what became of it."""

    request: Request
    answer: Answer
    verdict: Verdict


def synthesize(
    recipe: Recipe,
    *,
    seed_documents: Sequence[SeedDocument],
    teacher: Teacher,
    tokenizer: Tokenizer,
    contamination: ContaminationCheck,
    folder: str,
    key: str,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Write the synthetic corpus of the recipe to `folder`; returns `synthesis.json`.

    Stopped at any moment and started again, it asks the teacher only for what is not stored. The
    result depends on the answers, not on the order in which they came.

    Args:
      seed_documents: the selection `synthesis.seeds`.
      key: fingerprint of parameters, inputs and code; goes into every manifest.
      on_progress: told (answers stored, requests in all, a note).

    Raises:
      InputError: no seed can be used; nothing was accepted; the teacher's mode is not supported.
    """
    settings = recipe.synthesis
    assert settings is not None, "no synthesis in the recipe"
    facts_path = storage.join(folder, "synthesis.json")
    if storage.exists(facts_path):
        facts: dict[str, Any] = storage.read_json(facts_path)
        outputs = [_documents_path(folder), _attributes_path(folder)]
        if facts["key"] == key and all(storage.is_done(path, key) for path in outputs):
            return facts
    choice, asked = _requests(recipe, settings, seed_documents, teacher, tokenizer)
    log = AnswerLog(folder)
    try:
        _ask(teacher, asked.requests, log, on_progress)
    finally:
        log.close()
    seeds = {d.id: d for d in choice.seeds}
    judged = _judge(asked.requests, log.answers, seeds, settings, tokenizer, contamination)
    _write_rejected(folder, [j for j in judged if not j.verdict.accepted], key)
    accepted = [j for j in judged if j.verdict.accepted]
    facts = {"key": key, **_facts(judged, choice, asked, teacher, tokenizer)}
    if not accepted:
        raise InputError(_nothing_accepted(facts, settings))
    _write_accepted(folder, accepted, seeds, teacher.name, key)
    storage.write_json(facts_path, facts)
    return facts


def _requests(
    recipe: Recipe,
    settings: Synthesis,
    seed_documents: Sequence[SeedDocument],
    teacher: Teacher,
    tokenizer: Tokenizer,
) -> tuple[SeedChoice, Requests]:
    if teacher.mode != "completion":
        raise InputError(
            f"synthesis.teacher: `{teacher.name}` replies to instructions, and this version only "
            "has prompts for teachers that continue a text. Use `kind: checkpoint`."
        )
    choice = choose_seeds(
        seed_documents,
        num_seeds=settings.num_seeds,
        language_shares=settings.language_shares,
        seed=recipe.seed,
        usable_languages=CHECKABLE_LANGUAGES,
    )
    asked = completion_requests(
        choice.seeds,
        tokenizer=tokenizer,
        teacher_fingerprint=teacher.fingerprint,
        sampling=Sampling(settings.max_new_tokens, settings.temperature, settings.top_p),
        head_tokens=settings.head_tokens,
        seed=recipe.seed,
    )
    if not asked.requests:
        raise InputError(
            f"synthesis.seeds: none of the {len(seed_documents)} documents of `{settings.seeds}` "
            f"can be a seed (in other languages than {', '.join(CHECKABLE_LANGUAGES)}: "
            f"{sum(choice.unusable.values())}; {_counts(asked.skipped)}). Name a selection with "
            "more Python files in it, or raise synthesis.head_tokens."
        )
    return choice, asked


def _ask(
    teacher: Teacher, requests: Sequence[Request], log: AnswerLog, on_progress: OnProgress
) -> None:
    missing = [r for r in requests if r.key not in log.answers]
    wanted = {r.key for r in missing}
    done, num_tokens = len(requests) - len(missing), 0
    torn = f"{log.num_torn_lines} torn lines ignored" if log.num_torn_lines else ""
    on_progress(done, len(requests), torn)
    if not missing:
        return
    for answer in teacher.answers(missing):
        assert answer.key in wanted, f"{teacher.name} answered what was not asked"
        wanted.discard(answer.key)
        log.append(answer)
        done += 1
        num_tokens += answer.num_tokens
        on_progress(done, len(requests), f"{num_tokens:,} tokens written")
    assert not wanted, f"{teacher.name} left {len(wanted)} requests without an answer"


def _judge(
    requests: Sequence[Request],
    answers: dict[str, Answer],
    seeds: dict[str, SeedDocument],
    settings: Synthesis,
    tokenizer: Tokenizer,
    contamination: ContaminationCheck,
) -> list[Judged]:
    acceptance = Acceptance(
        Limits(settings.min_new_tokens, settings.max_similarity),
        lambda text: len(tokenizer.encode(text)),
        contamination,
    )
    result = []
    for request in sorted(requests, key=lambda r: r.key):
        answer = answers[request.key]
        verdict = acceptance.judge(
            head=request.prompt,
            seed_text=seeds[request.seed_id].text,
            continuation=answer.text,
            finish=answer.finish,
        )
        result.append(Judged(request, answer, verdict))
    return result


def _facts(
    judged: Sequence[Judged],
    choice: SeedChoice,
    asked: Requests,
    teacher: Teacher,
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """What `synthesis.json` tells; tokens are those of this project's tokenizer.

    `tokens.generated`: all that the teacher wrote; `tokens.kept`: of it, in accepted documents;
    `tokens.copied`: of the given heads in accepted documents. `cut_off`: of `reasons`, the
    answers that `max_new_tokens` ended; many of them ask for a higher one.
    """
    paths = {seed.id: f"{seed.repo}: {seed.path}" for seed in choice.seeds}
    accepted = [j for j in judged if j.verdict.accepted]
    rejected = [j for j in judged if not j.verdict.accepted]
    reasons = Counter(j.verdict.reason for j in rejected)
    cut_off = Counter(j.verdict.reason for j in rejected if j.answer.finish == "length")
    return {
        "teacher": teacher.name,
        "seeds": {
            "wanted": choice.wanted,
            "drawn": choice.drawn,
            "unusable_language": choice.unusable,
            "skipped": asked.skipped,
        },
        "requests": len(judged),
        "accepted": len(accepted),
        "yield": len(accepted) / len(judged),
        "reasons": dict(sorted(reasons.items())),
        "cut_off": dict(sorted(cut_off.items())),
        "finish": dict(sorted(Counter(j.answer.finish for j in judged).items())),
        "tokens": {
            "generated": sum(j.answer.num_tokens for j in judged),
            "kept": sum(j.verdict.new_tokens for j in accepted),
            "copied": sum(len(tokenizer.encode(j.request.prompt)) for j in accepted),
        },
        "samples": {
            "accepted": _samples(accepted, paths),
            **{
                r: _samples([j for j in judged if j.verdict.reason == r], paths)
                for r in sorted(reasons)
            },
        },
    }


def _samples(judged: Iterable[Judged], paths: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {
            "key": j.request.key,
            "seed_id": j.request.seed_id,
            "seed_path": paths[j.request.seed_id],
            "reason": j.verdict.reason,
            "head": j.request.prompt[:SAMPLE_CHARACTERS],
            "text": _storable(j.verdict.kept_text or j.answer.text)[:SAMPLE_CHARACTERS],
            "value": j.verdict.value,
            "detail": _storable(j.verdict.detail or j.answer.error),
        }
        for j in list(judged)[:NUM_SAMPLES]
    ]


def _nothing_accepted(facts: dict[str, Any], settings: Synthesis) -> str:
    return (
        f"synthesis: none of {facts['requests']} answers of `{facts['teacher']}` was accepted "
        f"({_counts(facts['reasons'])}; rejected.parquet beside the answers has them all). Raise "
        f"synthesis.num_seeds ({settings.num_seeds}) or synthesis.max_new_tokens "
        f"({settings.max_new_tokens}), lower synthesis.min_new_tokens "
        f"({settings.min_new_tokens}), or train the teacher for longer."
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {n}" for name, n in sorted(counts.items())) or "no other reason"


def _write_accepted(
    folder: str,
    accepted: Sequence[Judged],
    seeds: dict[str, SeedDocument],
    teacher_name: str,
    key: str,
) -> None:
    documents, attributes = [], []
    for judged in accepted:
        request, seed = judged.request, seeds[judged.request.seed_id]
        stem, extension = os.path.splitext(seed.path)
        repo, path = f"synthetic/{teacher_name}", f"{stem}.{request.key}{extension}"
        content = request.prompt + judged.verdict.kept_text
        identity = "\0".join((repo, path, content)).encode()
        document = {
            "id": xxhash.xxh3_128_hexdigest(identity),
            "repo": repo,
            "path": path,
            "language": request.language,
            "license": seed.license,
            "stars": None,
            "content": content,
        }
        documents.append(document)
        attributes.append(
            {
                "id": document["id"],
                "verdict": "pass",
                "seed_id": seed.id,
                "head_bytes": len(request.prompt.encode()),
                "new_tokens": judged.verdict.new_tokens,
            }
        )
    # Rows lie as in any corpus: by repository, language, path.
    places = [(d["language"], d["path"]) for d in documents]
    order = sorted(range(len(documents)), key=lambda i: places[i])
    _write(_documents_path(folder), DOCUMENT_SCHEMA, (documents[i] for i in order), key)
    _write(_attributes_path(folder), ATTRIBUTE_SCHEMA, (attributes[i] for i in order), key)
    stage = storage.join(folder, "attributes", "synthesis", "stage.json")
    storage.write_json(stage, {"key": key, "rows": len(documents)})


def _write_rejected(folder: str, rejected: Sequence[Judged], key: str) -> None:
    rows = (
        {
            "key": j.request.key,
            "seed_id": j.request.seed_id,
            "language": j.request.language,
            "reason": j.verdict.reason,
            "value": j.verdict.value,
            "threshold": j.verdict.threshold,
            "head": j.request.prompt,
            "text": _storable(j.answer.text),
            "detail": _storable(j.verdict.detail or j.answer.error),
        }
        for j in rejected
    )
    _write(storage.join(folder, "rejected.parquet"), REJECTED_SCHEMA, rows, key)


def _write(path: str, schema: pa.Schema, rows: Iterator[dict[str, Any]], key: str) -> None:
    table = pa.Table.from_pylist(list(rows), schema=schema)
    with storage.atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    storage.write_manifest(path, key, rows=table.num_rows)


def _documents_path(folder: str) -> str:
    return storage.join(folder, "documents", SHARD)


def _attributes_path(folder: str) -> str:
    return storage.join(folder, "attributes", "synthesis", SHARD)


def _storable(text: str) -> str:
    """A server may send half of a surrogate pair, which UTF-8 has no bytes for."""
    return text.encode("utf-8", "replace").decode()

"""A teacher's answers judged, the accepted written as a corpus like any other.

An element is a part of seeds: its requests are made again, their answers found in the store by
key, and each is judged by itself. What is alike, repeats a benchmark or breaks a rule is told by
the ordinary stages over the corpus that is written here.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
import xxhash
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.utils.shared import Shared

from beam_pipelines import documents, workers
from beam_pipelines.documents import DOCUMENT_SCHEMA, VERDICT_FIELDS
from snowcoder_jax import storage
from snowcoder_jax.errors import InputError, MachineError
from snowcoder_jax.recipe import Sandbox
from snowcoder_jax.recipe_synthesis import Mode
from snowcoder_jax.synthesis import prompts, seed_parts
from snowcoder_jax.synthesis.accept import Limits, Verdict, judge, storable
from snowcoder_jax.synthesis.answers import AnswerIndex
from snowcoder_jax.synthesis.ask import Ask, load_ask
from snowcoder_jax.synthesis.execution import judge_runs
from snowcoder_jax.synthesis.requests import Request
from snowcoder_jax.synthesis.stored_row import StoredRow
from snowcoder_jax.tokenizer import Tokenizer

FILE_NAME = "synthesis.json"
SOURCE = "synthetic"

# Beside every document, where it comes from.
SYNTHESIS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        *VERDICT_FIELDS,
        pa.field("seed_id", pa.string()),
        pa.field("seed_first_line", pa.int32()),  # of what the teacher was shown of it;
        pa.field("seed_last_line", pa.int32()),  # 0 and 0: all
        pa.field("key", pa.string()),  # of the request: finds the answer in the store
        pa.field("prompt_version", pa.string()),
        pa.field("head_bytes", pa.int64()),  # UTF-8 bytes at the start that were given
        pa.field("new_tokens", pa.int64()),  # of the rest, by this project's tokenizer
    ]
)
REJECTED_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string()),
        pa.field("seed_id", pa.string()),
        pa.field("language", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("head", pa.large_string()),  # of a seed, that a base teacher went on from
        pa.field("text", pa.large_string()),  # all that the teacher wrote
        pa.field("detail", pa.string()),
    ]
)

# Requests whose answers are held at once.
_BATCH_REQUESTS = 64

Row = dict[str, Any]
# Where counts are summed: group -> name -> number.
Counts = dict[str, Counter[str]]


@dataclasses.dataclass(frozen=True)
class Judged:
    """A request with its stored answer and what became of it."""

    row: StoredRow
    verdict: Verdict


def run(
    ask_folder: str,
    *,
    tokenizer: str,
    sandbox: Sandbox,
    seed_facts: Row,
    output: str,
    key: str,
    options: PipelineOptions,
) -> Row:
    """Judge the answers to an ask that was answered whole; returns `synthesis.json`.

    Writes `documents/synthetic/` and `attributes/synthesis/` as any corpus has them, the refused
    to `rejected/`, and `synthesis.json` last. The accepted documents of a part are held at once.

    Args:
      ask_folder: of `ask.json`. tokenizer: folder of this project's.
      sandbox: limits of each run, where `synthesis.run_python` asks for them.
      seed_facts: of `seeds.run`.

    Raises:
      InputError: nothing was accepted. MachineError: an answer is not in the store any more.
    """
    ask = load_ask(ask_folder)
    columns = storage.join(output, "attributes", "synthesis")
    storage.remove_temporaries(columns)  # a step's start passes attributes over
    parts = seed_parts.part_paths(ask.seeds)
    folder = storage.join(output, "rejected")
    rejected = [storage.join(folder, os.path.basename(part)) for part in parts]
    before = zip(parts, storage.read_manifests(folder, rejected), strict=True)
    todo = [part for part, m in before if m is None or m["key"] != key]
    if todo:
        of_parts = storage.sizes_bytes(ask.seeds)
        sizes = [of_parts[os.path.basename(part)] for part in todo]
        with workers.pipeline(options) as pipeline:
            _ = workers.spread(pipeline, todo, sizes, options) | beam.ParDo(
                _JudgeFn(ask_folder, tokenizer, sandbox, output, key, Shared())
            )
    facts = {
        "key": key,
        "seeds": {"wanted": seed_facts["wanted"], "drawn": seed_facts["drawn"]},
        **_facts(storage.read_manifests(folder, rejected)),
    }
    facts["seeds"] |= {"unusable_language": seed_facts["unusable"], "skipped": facts.pop("skipped")}
    if not facts["accepted"]:
        raise InputError(_nothing_accepted(ask, facts, folder))
    documents.finish_stage(output, columns, key)
    storage.write_json(storage.join(output, FILE_NAME), facts)
    return facts


def _facts(manifests: Sequence[Row | None]) -> Row:
    """What the parts counted, in sum.

    `tokens.generated`: all that the teacher wrote, in its own tokens; `tokens.kept`: of it, in
    accepted documents, and `tokens.copied`: of the given heads there, in this project's.
    `cut_off`: of `reasons`, the answers that `max_new_tokens` ended; many of them ask for more.
    """
    total: Counter[tuple[str, str]] = Counter()
    for manifest in manifests:
        assert manifest is not None, "a part is not done"
        for group, counts in manifest["counts"].items():
            total.update({(group, name): n for name, n in counts.items()})
    summed = {
        group: {name: n for (g, name), n in sorted(total.items()) if g == group}
        for group in _GROUPS
    }
    requests = sum(summed["finish"].values())
    accepted = requests - sum(summed["reasons"].values())
    tokens = {name: summed["tokens"].get(name, 0) for name in ("generated", "kept", "copied")}
    return {
        **summed,
        "tokens": tokens,
        "teacher": ", ".join(summed.pop("teachers")),
        "requests": requests,
        "accepted": accepted,
        "yield": accepted / max(1, requests),
    }


_GROUPS = (
    *("skipped", "teachers", "prompt_versions", "finish", "reasons", "cut_off", "languages"),
    "tokens",
)


def _nothing_accepted(ask: Ask, facts: Row, folder: str) -> str:
    settings = ask.synthesis
    if not facts["requests"]:
        skipped = facts["seeds"]["skipped"]
        return (
            f"synthesis: no request was made of {sum(skipped.values())} seeds "
            f"({_listed(skipped)}). Name other seeds, or raise synthesis.head_tokens or "
            "synthesis.max_seed_bytes."
        )
    return (
        f"synthesis: none of {facts['requests']} answers of `{facts['teacher']}` was accepted "
        f"({_listed(facts['reasons'])}; {folder} has them all). Raise synthesis.num_seeds "
        f"({settings.num_seeds}) or synthesis.max_new_tokens ({settings.max_new_tokens}), lower "
        f"synthesis.min_new_tokens ({settings.min_new_tokens}), or use a better teacher."
    )


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name}: {n}" for name, n in sorted(counts.items()))


class _JudgeFn(beam.DoFn):
    """Judges the answers to the requests of one part of seeds."""

    def __init__(
        self,
        ask_folder: str,
        tokenizer: str,
        sandbox: Sandbox,
        output: str,
        key: str,
        shared: Shared,
    ) -> None:
        self._ask_folder = ask_folder
        self._tokenizer_folder = tokenizer
        self._sandbox = sandbox
        self._output = output
        self._key = key
        self._shared = shared

    def setup(self) -> None:
        self._ask = load_ask(self._ask_folder)
        self._tokenizer = Tokenizer.load(self._tokenizer_folder)
        # 36 bytes an answer, once a process and not once a thread.
        self._index: AnswerIndex = self._shared.acquire(lambda: AnswerIndex(self._ask.store))

    def process(self, part: str) -> Iterator[int]:
        path = storage.join(self._output, "rejected", os.path.basename(part))
        counts: Counts = {group: Counter() for group in _GROUPS}
        # Taking the tables fills `counts`; the manifest, which tells them, is written last.
        tables = self._refused(part, counts)
        yield documents.write_batches(path, REJECTED_SCHEMA, tables, self._key, counts=counts)

    def _refused(self, part: str, counts: Counts) -> Iterator[pa.Table]:
        """The refused, some at a time; at their end the accepted are written."""
        accepted: list[tuple[Row, Row]] = []
        requests = prompts.requests(self._ask, seed_parts.read_part(part))
        while batch := list(itertools.islice(requests, _BATCH_REQUESTS)):
            refused = []
            for judged in self._judge(self._stored(batch)):
                self._count(judged, counts)
                if judged.verdict.accepted:
                    accepted.append(_document_rows(judged))
                else:
                    refused.append(_rejected_row(judged, self._ask.synthesis.teacher.mode))
            yield pa.Table.from_pylist(refused, schema=REJECTED_SCHEMA)
        counts["skipped"].update(requests.skipped)
        self._write_accepted(os.path.basename(part), accepted)

    def _stored(self, requests: Sequence[Request]) -> list[StoredRow]:
        """The requests with their answers.

        Raises:
          MachineError: an answer is gone.
        """
        stored = self._index.find([request.key for request in requests])
        if missing := [request.key for request in requests if request.key not in stored]:
            raise MachineError(
                f"{self._ask.store}: answers are gone since they were asked ({missing[0]} and "
                f"{len(missing) - 1} of the next {len(requests) - 1}). Remove "
                f"{storage.join(self._ask_folder, 'step.json')} and start the same command "
                "again: what is missing is asked again."
            )
        # What a stored row says of its seed is from the run that asked first.
        return [dataclasses.replace(stored[r.key], request=r) for r in requests]

    def _judge(self, rows: Sequence[StoredRow]) -> Iterator[Judged]:
        limits = Limits.of(self._ask.synthesis)
        verdicts = [judge(row, limits, self._count_tokens) for row in rows]
        if self._ask.synthesis.run_python:
            languages = [row.request.language for row in rows]
            verdicts = judge_runs(verdicts, languages, self._sandbox)
        yield from itertools.starmap(Judged, zip(rows, verdicts, strict=True))

    def _count_tokens(self, text: str) -> int:
        return len(self._tokenizer.encode(text))

    def _count(self, judged: Judged, counts: Counts) -> None:
        request, answer, verdict = judged.row.request, judged.row.answer, judged.verdict
        counts["teachers"][judged.row.teacher] += 1
        counts["prompt_versions"][request.prompt_version] += 1
        counts["finish"][answer.finish] += 1
        counts["tokens"]["generated"] += answer.num_tokens
        if verdict.accepted:
            counts["languages"][request.language] += 1
            counts["tokens"]["kept"] += verdict.new_tokens
            counts["tokens"]["copied"] += self._count_tokens(_head(judged))
        else:
            counts["reasons"][verdict.reason] += 1
            if answer.finish == "length":
                counts["cut_off"][verdict.reason] += 1

    def _write_accepted(self, name: str, accepted: list[tuple[Row, Row]]) -> None:
        # Rows lie as in any corpus: by repository, language, path.
        accepted.sort(key=lambda rows: (rows[0]["repo"], rows[0]["language"], rows[0]["path"]))
        folders = ("documents", storage.join("attributes", "synthesis"))
        schemas = (DOCUMENT_SCHEMA, SYNTHESIS_SCHEMA)
        for number, (folder, schema) in enumerate(zip(folders, schemas, strict=True)):
            path = storage.join(self._output, folder, SOURCE, name)
            tables = _tables([rows[number] for rows in accepted], schema)
            documents.write_batches(path, schema, tables, self._key)


def _tables(rows: Iterable[Row], schema: pa.Schema) -> Iterator[pa.Table]:
    left = iter(rows)
    while batch := list(itertools.islice(left, documents.ROW_GROUP_ROWS)):
        yield pa.Table.from_pylist(batch, schema=schema)


def _head(judged: Judged) -> str:
    head_bytes = judged.verdict.head_bytes
    return judged.verdict.content.encode()[:head_bytes].decode()


def _document_rows(judged: Judged) -> tuple[Row, Row]:
    """An accepted document, and what stands beside it."""
    request, verdict = judged.row.request, judged.verdict
    seed = request.seed
    stem, extension = os.path.splitext(seed.path)
    repo, path = f"{SOURCE}/{judged.row.teacher}", f"{stem}.{request.key}{extension}"
    identity = "\0".join((repo, path, verdict.content)).encode()
    document = {
        "id": xxhash.xxh3_128_hexdigest(identity),
        "repo": repo,
        "path": path,
        "language": seed.language,
        "license": seed.license,
        "stars": None,
        "content": verdict.content,
    }
    beside = {
        "id": document["id"],
        "verdict": "pass",
        "seed_id": seed.id,
        "seed_first_line": seed.first_line,
        "seed_last_line": seed.last_line,
        "key": request.key,
        "prompt_version": request.prompt_version,
        "head_bytes": verdict.head_bytes,
        "new_tokens": verdict.new_tokens,
    }
    return document, beside


def _rejected_row(judged: Judged, mode: Mode) -> Row:
    request, answer, verdict = judged.row.request, judged.row.answer, judged.verdict
    return {
        "key": request.key,
        "seed_id": request.seed.id,
        "language": request.language,
        "reason": verdict.reason,
        "value": verdict.value,
        "threshold": verdict.threshold,
        # An instruct model's prompt is the template and the seed, which can be looked up.
        "head": request.prompt if mode == "completion" else "",
        "text": storable(answer.text),
        "detail": storable(verdict.detail or answer.error),
    }


if __name__ == "__main__":
    from beam_pipelines import command

    command.main("accept")

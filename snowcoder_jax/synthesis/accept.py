"""Which answers become documents. Pure functions of one answer; no text makes them raise.

An instruct model's reply must have ended by itself and hold one code block, whose text is the
document; a base model's continuation is cut back to its last whole top-level statement. What is
left is judged by itself: does it parse, is it long enough, is it degenerate, a copy of its seed.
Every refusal has a reason that can be counted, with the value and the threshold where it has
them. Copies of each other and of the corpus, benchmarks and secrets are looked for by the
ordinary stages, afterwards.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from typing import Any, Literal, Protocol

from snowcoder_jax.languages import LANGUAGES
from snowcoder_jax.recipe_synthesis import Mode, Synthesis
from snowcoder_jax.synthesis import completion
from snowcoder_jax.synthesis.replies import code_blocks, names_language
from snowcoder_jax.synthesis.requests import Answer, Request
from snowcoder_jax.text import parse_worker, reader
from snowcoder_jax.text.words import ngram_hashes, split_words

Reason = Literal[
    "",
    "error",  # the teacher gave no text
    "cut_off",  # the reply did not end by itself
    "no_code_block",
    "several_code_blocks",
    "open_code_block",
    "wrong_language",
    "empty",
    "unparsable",
    "no_new_statement",
    "too_short",
    "repetition",
    "copy_of_seed",
    "missing_module",  # of execution.py, as the next one
    "does_not_run",
]

SHINGLE_WORDS = 5

# Share of 12-grams of words and punctuation, digits folded, that occurred before in the same part.
# Of 8,200 runs of top-level statements cut from installed packages 1% (of 200 characters) to 4%
# (15,000) lie above 0.5; a line or a function over and over lies above 0.8. Repeated n-grams are
# Gopher's signal (arXiv 2112.11446, table A1), whose limits were made for prose.
REPEATED_GRAM_WORDS = 12
MAX_REPEATED_SHARE = 0.5

# Share of bytes in faulty nodes, 0 for all other languages. The grammars do not know macros and
# dialects: of 264 files of C and C++ of installed packages 48% parse without a fault and 89%
# within 2%; of 462 of JavaScript, PHP and Shell 98% without one.
MAX_FAULTY_SHARE = {"C": 0.02, "C++": 0.02, "SQL": 0.02}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an answer is held to: thresholds of the recipe's `synthesis`, and its teacher's mode."""

    mode: Mode
    min_new_tokens: int
    max_similarity: float

    @staticmethod
    def of(settings: Synthesis) -> Limits:
        return Limits(settings.teacher.mode, settings.min_new_tokens, settings.max_similarity)


class Row(Protocol):
    """A request and its stored answer."""

    @property
    def request(self) -> Request: ...
    @property
    def answer(self) -> Answer: ...


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one answer.

    Attributes:
      reason: "" where it is accepted.
      content: the document, as a file of its language would hold it; it ends with one line break.
        Of a refused answer: as far as it was taken out of the reply, else "".
      head_bytes: UTF-8 bytes at the start of `content` that were given, not written.
      new_tokens: of what was written; 0 where that was not counted.
      value: what was measured, where the reason has a threshold.
      detail: in words: the teacher's error, the tag of the block, the line that does not parse.
    """

    accepted: bool
    reason: Reason
    content: str = ""
    head_bytes: int = 0
    new_tokens: int = 0
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


def usable_languages(mode: Mode) -> tuple[str, ...]:
    """Languages whose answers can be judged, in the order of the table."""
    if mode == "completion":
        return completion.LANGUAGES
    return tuple(language.name for language in LANGUAGES)


def judge(row: Row, limits: Limits, count_tokens: Callable[[str], int]) -> Verdict:
    """The verdict on one answer, by itself. Its texts can be written as UTF-8.

    Args:
      count_tokens: of a text, by this project's tokenizer; it is given valid UTF-8 only.

    Raises:
      MachineError: the process that parses does not start.
    """
    verdict = _judge(row, limits, count_tokens)
    if verdict.accepted:
        return verdict
    content, detail = storable(verdict.content), storable(verdict.detail)
    return dataclasses.replace(verdict, content=content, detail=detail)


def storable(text: str) -> str:
    """`text` with `?` for halves of surrogate pairs, which a server may send and UTF-8 has not."""
    return text.encode("utf-8", "replace").decode()


def _judge(row: Row, limits: Limits, count_tokens: Callable[[str], int]) -> Verdict:
    if row.answer.finish == "error":
        return Verdict(False, "error", detail=row.answer.error)
    if limits.mode == "completion":
        head, (written, verdict) = row.request.prompt, _completed(row.request, row.answer)
    else:
        head, (written, verdict) = "", _replied(row.request, row.answer)
    if not verdict.accepted:
        return verdict
    new_tokens = count_tokens(written)
    verdict = dataclasses.replace(verdict, head_bytes=len(head.encode()), new_tokens=new_tokens)

    def refused(reason: Reason, value: float, threshold: float) -> Verdict:
        return dataclasses.replace(
            verdict, accepted=False, reason=reason, value=value, threshold=threshold
        )

    if new_tokens < limits.min_new_tokens:
        return refused("too_short", new_tokens, limits.min_new_tokens)
    repeated = repeated_share(written)
    if repeated > MAX_REPEATED_SHARE:
        return refused("repetition", repeated, MAX_REPEATED_SHARE)
    in_seed = containment(shingles(written), shingles(row.request.seed.text))
    if in_seed >= limits.max_similarity:
        return refused("copy_of_seed", in_seed, limits.max_similarity)
    return verdict


def _completed(request: Request, answer: Answer) -> tuple[str, Verdict]:
    """What is kept of a continuation, and the verdict so far."""
    ended = answer.finish == "stop"
    kept, reason = completion.cut_to_statements(request.prompt, answer.text, ended=ended)
    return kept, Verdict(not reason, reason, request.prompt + kept if kept else "")


def _replied(request: Request, answer: Answer) -> tuple[str, Verdict]:
    """The code that a reply holds, and the verdict so far."""
    if answer.finish != "stop":
        return "", Verdict(False, "cut_off")
    blocks = code_blocks(answer.text)
    if not blocks:
        return "", Verdict(False, "no_code_block")
    if len(blocks) > 1:
        return "", Verdict(False, "several_code_blocks", detail=f"{len(blocks)} blocks")
    block = blocks[0]
    code = block.text.strip("\n").rstrip() + "\n"
    if not block.is_closed:
        return "", Verdict(False, "open_code_block", code)
    if not names_language(block.tag, request.language):
        return "", Verdict(False, "wrong_language", code, detail=f"tagged {block.tag}")
    if not code.strip():
        return "", Verdict(False, "empty")
    fault = parse_fault(code, request.language, request.seed.path)
    if fault is not None:
        return "", dataclasses.replace(fault, content=code)
    if request.language != reader.NOTEBOOK:
        return code, Verdict(True, "", code)
    notebook = _as_notebook(code)
    if notebook is None:
        fault = _unparsable("no notebook in percent form")
        return "", dataclasses.replace(fault, content=code)
    return code, Verdict(True, "", notebook)


def parse_fault(code: str, language: str, path: str = "") -> Verdict | None:
    """None where `code` parses in `language`, else the verdict that says why it does not.

    Python (and a notebook's script) by the compiler of this Python, others by tree-sitter.
    """
    if len(code) > completion.MAX_CHARACTERS:
        return _unparsable("is too long to be parsed", len(code), completion.MAX_CHARACTERS)
    try:
        data = code.encode()
    except UnicodeEncodeError:
        return _unparsable("half of a surrogate pair")
    if "\0" in code:
        return _unparsable("holds NUL")
    if language in ("Python", reader.NOTEBOOK):
        tree, line = completion.compile_python(code)
        return None if tree is not None else _unparsable(f"line {line}" if line else "no Python")
    # To PHP's grammar a file without the opening tag is text, and all of it well-formed.
    if language == "PHP" and "<?" not in code:
        return _unparsable("no <?php")
    (counts,) = parse_worker.count_trees([data], [language], [path])
    if counts is None:
        return _unparsable("beyond the parser's bounds")
    share, most = counts.error_bytes / len(data), MAX_FAULTY_SHARE.get(language, 0.0)
    return _unparsable("share of faulty bytes", share, most) if share > most else None


def _unparsable(detail: str, value: float | None = None, threshold: float | None = None) -> Verdict:
    return Verdict(False, "unparsable", value=value, threshold=threshold, detail=detail)


def _as_notebook(script: str) -> str | None:
    """The notebook that a script in jupytext's percent form stands for, as its file holds it.

    In format 4.4, since later ones give every cell a random name.
    """
    import jupytext  # slow to import, and few answers are notebooks

    try:
        read = jupytext.reads(script, fmt="py:percent").cells
    except Exception:  # whatever a malformed header does to the libraries behind it
        return None
    cells = []
    for cell in read:
        kept: dict[str, Any] = {
            "cell_type": cell.cell_type,
            "metadata": {},
            "source": cell.source.splitlines(keepends=True),
        }
        if cell.cell_type == "code":
            kept |= {"execution_count": None, "outputs": []}
        cells.append(kept)
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    return json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"


def shingles(text: str) -> frozenset[int]:
    """Hashes of the word 5-grams of `text`, as deduplication has them; of fewer words, all."""
    words = split_words(text.encode("utf-8", "replace")).hashes
    return frozenset(ngram_hashes(words, min(SHINGLE_WORDS, max(1, len(words)))).tolist())


def containment(part: frozenset[int], whole: frozenset[int]) -> float:
    """The share of `part` that is in `whole`, in [0, 1]; 0 of nothing."""
    return len(part & whole) / max(1, len(part))


def repeated_share(text: str) -> float:
    """The share of 12-grams of words and punctuation, digits as 0, that occurred before."""
    words = re.findall(r"\w+|[^\w\s]", re.sub(r"\d+", "0", text))
    num_grams = len(words) - REPEATED_GRAM_WORDS + 1
    if num_grams <= 0:
        return 0.0
    distinct = {tuple(words[i : i + REPEATED_GRAM_WORDS]) for i in range(num_grams)}
    return 1.0 - len(distinct) / num_grams

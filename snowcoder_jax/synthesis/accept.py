"""Which continuations become documents. Pure functions; nothing here raises on any text.

A continuation is cut back to its last whole top-level statement and then judged by itself: is
there something new, is it long enough, is it degenerate, a copy, a benchmark's solution. Every
refusal has a reason that can be counted, with the value and the threshold where it has them.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import warnings
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from typing import Literal, Protocol

from snowcoder_jax.text.words import ngram_hashes, split_words

# Languages whose completions can be checked by parsing.
CHECKABLE_LANGUAGES = ("Python",)

Reason = Literal[
    "",
    "empty",
    "unparsable",
    "no_new_statement",
    "too_short",
    "repetition",
    "copy_of_seed",
    "copy_of_other",
    "contaminated",
    "error",
]

SHINGLE_WORDS = 5

# Share of 12-grams of words and punctuation, digits folded, that occurred before in the same part.
# Of 8,200 runs of top-level statements cut from installed packages 1% (of 200 characters) to 4%
# (15,000) lie above 0.5; a line or a function over and over lies above 0.8. Repeated n-grams are
# Gopher's signal (arXiv 2112.11446, table A1), whose limits were made for prose.
REPEATED_GRAM_WORDS = 12
MAX_REPEATED_SHARE = 0.5

# A failed parse names the line that broke it and the next try cuts before it, so few are needed.
MAX_PARSES = 32
# More than code of 8,192 tokens has (some 40,000); bounds the parser's memory and time.
MAX_CHARACTERS = 200_000

_LINE_BREAK = re.compile(r"\r\n|\r|\n")
# A line at column 0 that starts a statement of its own: no comment, no closing bracket, no
# keyword that belongs to the statement before.
_STATEMENT_LINE = re.compile(
    r"(?:^|(?<=[\r\n]))(?![\s#)\]}])(?!(?:else|elif|except|finally)\b)", re.MULTILINE
)


class ContaminationCheck(Protocol):
    """What is needed of `text.contamination.ContaminationIndex`."""

    def find(self, text: str, language: str | None = None) -> object | None: ...


@dataclasses.dataclass(frozen=True)
class Limits:
    """Thresholds of the recipe's `synthesis`."""

    min_new_tokens: int
    max_similarity: float


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of one answer.

    Attributes:
      reason: "" where it is accepted.
      kept_text: what is kept of the generated part, ending with one line break; the document is
        the head followed by it. Of a refused answer: as far as it was cut.
      new_tokens: tokens of `kept_text`.
      value: what was measured, where the reason has a threshold.
      detail: of a contaminated one, what it was found to repeat.
    """

    accepted: bool
    reason: Reason
    kept_text: str = ""
    new_tokens: int = 0
    value: float | None = None
    threshold: float | None = None
    detail: str = ""


class Acceptance:
    """Judges answers one after the other; what is accepted counts as "another" from then on.

    Give the answers in the order of their keys, whatever order they arrived in, and the verdicts
    are the same every time.
    """

    def __init__(
        self,
        limits: Limits,
        count_tokens: Callable[[str], int],
        contamination: ContaminationCheck,
    ) -> None:
        self._limits = limits
        self._count_tokens = count_tokens
        self._contamination = contamination
        self._num_accepted = 0
        self._accepted_with: dict[int, list[int]] = {}

    def judge(self, *, head: str, seed_text: str, continuation: str, finish: str) -> Verdict:
        """The verdict on a base model's continuation of `head`.

        Args:
          head: the given text. seed_text: the whole file it was taken from.
          finish: "stop" where the model ended the file itself; "length" where it was cut off, so
            that its last statement is not known to be whole; "error".
        """
        if finish == "error":
            return Verdict(False, "error")
        kept, reason = cut_to_statements(head, continuation, ended=finish == "stop")
        new_tokens = self._count_tokens(kept) if kept else 0
        if reason:
            return Verdict(False, reason, kept, new_tokens)

        def refused(reason: Reason, value: float, threshold: float) -> Verdict:
            return Verdict(False, reason, kept, new_tokens, value, threshold)

        if new_tokens < self._limits.min_new_tokens:
            return refused("too_short", new_tokens, self._limits.min_new_tokens)
        repeated = repeated_share(kept)
        if repeated > MAX_REPEATED_SHARE:
            return refused("repetition", repeated, MAX_REPEATED_SHARE)
        own = shingles(kept)
        in_seed = containment(own, shingles(seed_text))
        if in_seed >= self._limits.max_similarity:
            return refused("copy_of_seed", in_seed, self._limits.max_similarity)
        match = self._contamination.find(head + kept, "Python")
        if match is not None:
            return Verdict(False, "contaminated", kept, new_tokens, detail=str(match))
        in_other = self._largest_overlap(own)
        if in_other >= self._limits.max_similarity:
            return refused("copy_of_other", in_other, self._limits.max_similarity)
        for shingle in own:
            self._accepted_with.setdefault(shingle, []).append(self._num_accepted)
        self._num_accepted += 1
        return Verdict(True, "", kept, new_tokens)

    def _largest_overlap(self, own: frozenset[int]) -> float:
        """The largest containment of `own` in one accepted part; Jaccard is never above it."""
        shared = Counter(i for shingle in own for i in self._accepted_with.get(shingle, ()))
        return max(shared.values(), default=0) / max(1, len(own))


def cut_to_statements(head: str, continuation: str, *, ended: bool) -> tuple[str, Reason]:
    """Cut a continuation of Python code back to its last whole top-level statement.

    Args:
      ended: whether the model ended the text itself. If not, a last statement counts as whole
        only where another one began after it.

    Returns:
      The kept part and "", or "" and the reason. `head` and the kept
      part together compile. A statement is new where its first line begins after the head;
      `pass` and an expression that is a mere name or constant are none.
    """
    if not continuation.strip():
        return "", "empty"
    text = head + continuation
    if len(text) > MAX_CHARACTERS:
        return "", "unparsable"
    cuts = [m.start() for m in _STATEMENT_LINE.finditer(text) if m.start() > len(head)]
    starts = line_starts(text)
    end, whole = len(text), ended
    for _ in range(MAX_PARSES):
        tree, fault_line = _compile(text[:end])
        if tree is not None:
            return _keep_new(text[:end], tree, starts, head, whole)
        # No prefix that reaches past the line of the fault can parse: cut before it.
        limit = starts[min(fault_line, len(starts)) - 1] if fault_line else end
        index = min(bisect_right(cuts, limit), bisect_right(cuts, end - 1)) - 1
        if index < 0:
            break
        end, whole = cuts[index], True
        if not text[len(head) : end].strip():
            break
    return "", "unparsable"


def _keep_new(
    text: str, tree: ast.Module, starts: list[int], head: str, last_is_whole: bool
) -> tuple[str, Reason]:
    body = tree.body
    if not last_is_whole and body:
        dropped_line = first_line(body[-1])
        body = [s for s in body[:-1] if last_line(s) < dropped_line]
    if not any(starts[first_line(s) - 1] >= len(head) and not _is_idle(s) for s in body):
        return "", "no_new_statement"
    end_line = last_line(body[-1])
    end = starts[end_line] if end_line < len(starts) else len(text)
    return text[len(head) : end].rstrip() + "\n", ""


def first_line(statement: ast.stmt) -> int:
    """The line a statement begins at, its decorators included; the first line is 1."""
    decorators = getattr(statement, "decorator_list", [])
    return min([statement.lineno, *(d.lineno for d in decorators)])


def last_line(statement: ast.stmt) -> int:
    """The line a statement ends at."""
    assert statement.end_lineno is not None, "trees from source have it"
    return statement.end_lineno


def _is_idle(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr):
        return isinstance(statement.value, (ast.Constant, ast.Name))
    return isinstance(statement, ast.Pass)


def line_starts(text: str) -> list[int]:
    """Offsets at which the lines of `text` begin, as Python's parser counts lines."""
    return [0, *(m.end() for m in _LINE_BREAK.finditer(text))]


def parse_python(text: str) -> ast.Module | None:
    """The tree of Python code, or None where it does not parse; never raises."""
    return _compile(text, only_parse=True)[0]


def _compile(text: str, only_parse: bool = False) -> tuple[ast.Module | None, int]:
    """The tree and 0, or None and the line of the fault (0 where there is none to name).

    Compiled to the end, since `return` outside a function parses but does not compile.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
            if not only_parse:
                compile(tree, "<generated>", "exec", dont_inherit=True)
    except SyntaxError as e:
        return None, e.lineno or 0
    except (ValueError, RecursionError, MemoryError, OverflowError, SystemError):
        # Null bytes, lone surrogates, huge number literals; nesting beyond the parser's stack.
        return None, 0
    return tree, 0


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

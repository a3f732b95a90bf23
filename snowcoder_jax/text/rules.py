"""The file rules: the signals of texts, and the verdict of thresholds on them.

A text passes, is dropped by its first failing rule (in the order of `rule_table.RULES`) with value
and threshold, or is an error where a signal cannot be had; an error is never a pass. Rules see
raw content; a notebook is judged by the script that it becomes.

Shapes: N documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from snowcoder_jax import recipe_corpus
from snowcoder_jax.text import (
    code_signals,
    generated,
    parse_worker,
    reader,
    rule_table,
    signals,
    word_signals,
)
from snowcoder_jax.text.rule_table import RULES, SIGNALS, Group
from snowcoder_jax.text.signals import Columns

Bools = npt.NDArray[np.bool_]

# What an error names in place of a rule: the notebook could not be read, the tree not be built.
NOTEBOOK_ERROR = "notebook"
PARSE_ERROR = "parse"


@dataclass(frozen=True, slots=True)
class Verdict:
    """ "pass", "drop" or "error"; the rule, its value and its threshold where not a pass."""

    verdict: str
    rule: str | None = None
    value: float | None = None
    threshold: float | None = None


PASS = Verdict("pass")


class Judged(NamedTuple):
    """Verdicts of documents, and their signals: each of shape [N], NaN where not measured."""

    signals: Columns
    verdicts: list[Verdict]


def judge_documents(
    contents: Sequence[bytes],
    languages: Sequence[str],
    paths: Sequence[str],
    rules: recipe_corpus.Rules,
) -> Judged:
    """Signals and verdicts of documents; nothing of one bears on another.

    Args:
      contents: raw, UTF-8 (lone surrogates as three bytes each). languages: of the 18.
      paths: inside the repository; some signals look at a file's name.
    """
    texts: list[bytes] = []
    is_read = np.ones(len(contents), np.bool_)
    for index, (content, language) in enumerate(zip(contents, languages, strict=True)):
        text = _script(content) if language == reader.NOTEBOOK else content
        is_read[index] = text is not None
        texts.append(text if text is not None else b"")
    limits = {language: rule_table.thresholds(rules, language) for language in set(languages)}
    columns = _measure(texts, languages, paths, limits, is_read, parse=rules.parse)
    verdicts = decide(columns, languages, limits)
    if rules.parse:
        for index in np.flatnonzero(np.isnan(columns["parse_error_share"])).tolist():
            if verdicts[index] == PASS:
                verdicts[index] = Verdict("error", PARSE_ERROR)
    for index in np.flatnonzero(~is_read).tolist():
        verdicts[index] = Verdict("error", NOTEBOOK_ERROR)
    return Judged(columns, verdicts)


def judge_document(
    content: str, language: str, rules: recipe_corpus.Rules, path: str = ""
) -> tuple[dict[str, float], Verdict]:
    """`judge_documents` of one document: the signals that could be measured, and its verdict."""
    judged = judge_documents([_encode(content)], [language], [path], rules)
    measured = {name: float(column[0]) for name, column in judged.signals.items()}
    return {k: v for k, v in measured.items() if not np.isnan(v)}, judged.verdicts[0]


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _script(content: bytes) -> bytes | None:
    try:
        return _encode(
            reader.clean_text(content.decode("utf-8", "surrogatepass"), reader.NOTEBOOK, ())
        )
    except ValueError:
        return None


def _measure(
    texts: Sequence[bytes],
    languages: Sequence[str],
    paths: Sequence[str],
    limits: dict[str, dict[str, float]],
    is_read: Bools,
    parse: bool,
) -> Columns:
    """All signals that are asked for; the rest, and those of what could not be read, are NaN."""
    columns = {name: np.full(len(texts), np.nan) for name in SIGNALS}

    def rows_of(group: Group) -> npt.NDArray[np.int64]:
        asking = {
            language
            for language, table in limits.items()
            if any(SIGNALS[rule_table.BY_NAME[rule].signal][1] == group for rule in table)
        }
        asks = np.array([group == "text" or x in asking for x in languages], np.bool_)
        # Shares of lines of code need the lines of code.
        return np.flatnonzero(is_read & (asks | (parse and group in ("tree", "code"))))

    def put(rows: npt.NDArray[np.int64], found: Columns) -> None:
        for name, values in found.items():
            columns[name][rows] = values

    rows = rows_of("text")
    put(rows, signals.measure([texts[i] for i in rows]))
    put(
        rows,
        _origin([texts[i] for i in rows], [languages[i] for i in rows], [paths[i] for i in rows]),
    )
    rows = rows_of("words")
    put(rows, word_signals.measure([texts[i] for i in rows]))
    rows = rows_of("code")
    of_code = [code_signals.measure(texts[i], languages[i], paths[i]) for i in rows]
    for name, values in zip(code_signals.NAMES, zip(*of_code, strict=True), strict=False):
        columns[name][rows] = values
    if parse:
        _put_trees(columns, texts, languages, paths, rows_of("tree"))
    return columns


def _origin(texts: Sequence[bytes], languages: Sequence[str], paths: Sequence[str]) -> Columns:
    each = list(zip(texts, languages, paths, strict=True))
    return {
        "autogenerated": np.array([generated.has_marker(t) for t in texts], float),
        "linguist_generated": np.array([generated.by_linguist(*x) for x in each], float),
        "generator_words": np.array([generated.has_words(t) for t in texts], float),
        "test_file": np.array(
            [x == "Go" and p.lower().endswith("_test.go") for _, x, p in each], float
        ),
    }


def _put_trees(
    columns: Columns,
    texts: Sequence[bytes],
    languages: Sequence[str],
    paths: Sequence[str],
    rows: npt.NDArray[np.int64],
) -> None:
    counted = parse_worker.count_trees(
        [texts[i] for i in rows], [languages[i] for i in rows], [paths[i] for i in rows]
    )
    for index, counts in zip(rows.tolist(), counted, strict=True):
        if counts is None:
            continue
        num_lines = max(columns["num_code_lines"][index], 1)
        declarations = (
            counts.num_functions
            + counts.num_classes
            + counts.num_imports
            + counts.num_simple_returns
            + counts.num_simple_variables
        )
        found = {
            "parse_error_share": min(1.0, counts.error_bytes / max(len(texts[index]), 1)),
            "max_depth": counts.max_depth,
            "num_functions": counts.num_functions,
            "num_classes": counts.num_classes,
            "num_imports": counts.num_imports,
            "num_variables": counts.num_variables,
            "function_line_share": counts.num_functions / num_lines,
            "simple_function_line_share": counts.num_simple_functions / num_lines,
            "declaration_line_share": declarations / num_lines,
        }
        for name, value in found.items():
            columns[name][index] = value


def decide(
    columns: Columns, languages: Sequence[str], limits: dict[str, dict[str, float]]
) -> list[Verdict]:
    """The first failing rule of each document; a signal that is missing fails none."""
    verdicts = [PASS] * len(languages)
    is_open = np.ones(len(languages), np.bool_)
    for rule in RULES:
        if not any(rule.name in table for table in limits.values()):
            continue
        limit_N = np.array([limits[x].get(rule.name, np.nan) for x in languages], float)
        value_N = columns[rule.signal]
        fails_N = value_N > limit_N if rule.kind == "max" else value_N < limit_N
        for index in np.flatnonzero(fails_N & is_open).tolist():
            value, limit = float(value_N[index]), float(limit_N[index])
            verdicts[index] = Verdict("drop", rule.name, value, limit)
            is_open[index] = False
    return verdicts

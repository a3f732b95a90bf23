"""What `inspect` gathers of the rules stage: failures, histograms of signals, and samples."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from snowcoder_jax import recipe_corpus
from snowcoder_jax.reports.inspect_samples import Facts, Smallest
from snowcoder_jax.reports.inspect_tallies import Bools, Floats, Tally
from snowcoder_jax.text import rule_table
from snowcoder_jax.text.rule_table import Rule

# A kept file is near a threshold up to this part of it.
NEAR = 0.25
_NO_SIGNALS = ("id", "verdict", "rule", "value", "threshold")


@dataclasses.dataclass
class RuleFigures:
    """Figures of the rules stage over the shards added so far.

    Attributes:
      fails, fails_alone: (rule, language) -> documents beyond that threshold, whichever rule the
        verdict names; and those that no other rule would drop.
      tallies: (signal, language) -> its histogram.
      flags: (signal, language) -> documents where a yes-or-no signal is yes.
    """

    rules: recipe_corpus.Rules
    fails: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    fails_alone: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)
    tallies: dict[tuple[str, str], Tally] = dataclasses.field(default_factory=dict)
    flags: Counter[tuple[str, str]] = dataclasses.field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.thresholds = functools.cache(functools.partial(rule_table.thresholds, self.rules))

    def signals(self) -> list[str]:
        """Signals that are numbers, in the order of the stage's columns."""
        return list(dict.fromkeys(signal for signal, _ in self.tallies))

    def add(
        self,
        stage: pa.Table,
        entries: list[Facts],
        languages: npt.NDArray[Any],
        smallest: Smallest,
    ) -> None:
        """One shard: the stage's rows, what a sample tells of each document, its language."""
        passed = np.asarray(pc.equal(stage["verdict"], "pass").fill_null(False).to_numpy())
        judged = stage.select(["verdict", "rule", "value", "threshold"])
        for i in np.flatnonzero(~passed).tolist():
            verdict = judged.slice(i, 1).to_pylist()[0]
            smallest.add(("rules", str(verdict["rule"])), {**entries[i], **verdict})
        values = {
            name: _floats(stage[name]) for name in stage.column_names if _is_signal(stage, name)
        }
        for language in sorted(set(languages)):
            here = np.flatnonzero(languages == language)
            failed = self._failed({n: v[here] for n, v in values.items()}, language)
            for name, of_signal in values.items():
                self._add_signal(stage, name, language, of_signal[here], failed)
            for rule in failed:
                near = here[passed[here]]
                self._add_near(rule, language, values[rule.signal], near, entries, smallest)

    def _failed(self, values: dict[str, Floats], language: str) -> dict[Rule, Bools]:
        """For each rule that is on: which documents are beyond it. A missing value is not."""
        thresholds = self.thresholds(language)
        failed: dict[Rule, Bools] = {}
        for rule in rule_table.RULES:
            if rule.name in thresholds and rule.signal in values:
                of_signal, threshold = values[rule.signal], thresholds[rule.name]
                failed[rule] = (
                    of_signal > threshold if rule.kind == "max" else of_signal < threshold
                )
        num_failed = np.sum(list(failed.values()), axis=0) if failed else np.zeros(0)
        for rule, is_beyond in failed.items():
            self.fails[rule.name, language] += int(is_beyond.sum())
            self.fails_alone[rule.name, language] += int((is_beyond & (num_failed == 1)).sum())
        return failed

    def _add_signal(
        self, stage: pa.Table, name: str, language: str, values: Floats, failed: dict[Rule, Bools]
    ) -> None:
        if pa.types.is_boolean(stage.schema.field(name).type):
            self.flags[name, language] += int(np.nansum(values))
            return
        is_beyond = np.zeros(len(values), np.bool_)
        for rule, of_rule in failed.items():
            if rule.signal == name:
                is_beyond |= of_rule
        self.tallies.setdefault((name, language), Tally()).add(values, is_beyond)

    def _add_near(
        self,
        rule: Rule,
        language: str,
        values: Floats,
        rows: npt.NDArray[np.int64],
        entries: list[Facts],
        smallest: Smallest,
    ) -> None:
        """Kept documents close to a threshold; 0 and 1 have nothing near them."""
        threshold = self.thresholds(language)[rule.name]
        if threshold == 0:
            return
        distance = np.abs(values[rows] - threshold) / abs(threshold)
        order = np.argsort(distance, kind="stable")
        # A shard's nearest are enough: no other can be among the nearest of all.
        for i in order[: smallest.size]:
            if distance[i] <= NEAR:
                entry = entries[rows[i]]
                value = {"value": float(values[rows[i]]), "threshold": threshold}
                smallest.add(("near", rule.name), {**entry, **value}, float(distance[i]))


def _is_signal(stage: pa.Table, name: str) -> bool:
    type_ = stage.schema.field(name).type
    is_number = pa.types.is_integer(type_) or pa.types.is_floating(type_)
    return name not in _NO_SIGNALS and (is_number or pa.types.is_boolean(type_))


def _floats(column: pa.ChunkedArray) -> Floats:
    """NaN where null."""
    return np.asarray(column.cast(pa.float64()).fill_null(np.nan).to_numpy(), np.float64)

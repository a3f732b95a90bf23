"""What a finished phase did, read back from its manifest and metrics.

So a phase that was killed after its last step still has a result; where lines of the metrics are
lost it is poorer by some figures, and no training is.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from snowcoder_jax import recipe, storage, strict
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import distributed, manifests
from snowcoder_jax.training.goodput import Account, phase_account
from snowcoder_jax.training.metrics import read_metrics
from snowcoder_jax.training.mixture import (
    ResolvedPart,
    SeenSource,
    resolve_mixture,
    seen_by_source,
)

RESULT = "result.json"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PhaseResult:
    """What a finished phase did. Figures of steps whose lines of the metrics are lost are None.

    Attributes:
      tokens: read, steps x batch x sequence length.
      final_loss: of the last step, nats a token; None where it was not finite.
      checkpoint: the phase's checkpoint folder.
      sequences: read of each selection.
      seconds: of all steps together, start-up and compilation counted in, lost work not.
      tokens_per_second: at the median step.
      seconds_to_first_step: from the call to the end of the first step.
      data_wait_share: of the seconds after the first step, in which the devices lacked a batch.
      seen: what was read of each source, in each language.
      mfu_causal, mfu_full: at the median step; None where the devices' peak is not known.
      account: of all time that the phase took, lost work counted in.
    """

    phase: str
    steps: int
    tokens: int
    final_loss: float | None
    checkpoint: str
    sequences: dict[str, int]
    seconds: float | None
    tokens_per_second: float | None
    seconds_to_first_step: float | None
    data_wait_share: float | None
    skipped_updates: int
    mixture: tuple[ResolvedPart, ...]
    seen: tuple[SeenSource, ...]
    mfu_causal: float | None
    mfu_full: float | None
    account: Account


def phase_result(
    run: recipe.Recipe,
    phase: recipe.Phase,
    packed: dict[str, Packed],
    folder: str,
    metrics_path: str,
) -> PhaseResult:
    """The result of a phase whose last step is saved; the first process makes it, for all."""

    def decide() -> object:
        path = storage.join(folder, RESULT)
        stored = _load(storage.read_json_if_sound(path))
        if stored is None:
            stored = _made(run, phase, packed, folder, metrics_path)
            storage.write_json(path, strict.to_plain(stored))
        return strict.to_plain(stored)

    result = _load(distributed.agreed(f"result of {phase.name}", decide))
    assert result is not None
    return result


def _load(plain: object) -> PhaseResult | None:
    """None for what an earlier version wrote, or for nothing."""
    faults: list[strict.Fault] = []
    return strict.load(PhaseResult, plain, faults)


def _made(
    run: recipe.Recipe,
    phase: recipe.Phase,
    packed: dict[str, Packed],
    folder: str,
    metrics_path: str,
) -> PhaseResult:
    lines = read_metrics(metrics_path, phase.name)
    is_whole = len(lines) == phase.num_steps
    if not is_whole:
        _LOG.warning(
            "%s: holds %d of phase `%s`'s %d steps; the result lacks the figures of the others",
            *(metrics_path, len(lines), phase.name, phase.num_steps),
        )
    first = next((line for line in lines if line.step == 1), None)
    last = next((line for line in lines if line.step == phase.num_steps), None)
    later = [line for line in lines if line is not first] or lines
    later_seconds = sum(line.seconds for line in later)
    waited_seconds = sum(line.data_wait_seconds for line in later)
    manifest = manifests.read_manifest(folder, phase.num_steps)
    mixture = resolve_mixture(phase, packed)
    sequences = dict.fromkeys((part.selection for part in mixture), 0)
    for part in mixture:
        sequences[part.selection] += part.num_sequences
    return PhaseResult(
        phase=phase.name,
        steps=phase.num_steps,
        tokens=phase.num_steps * phase.tokens_per_step,
        final_loss=last.loss if last else None,
        checkpoint=folder,
        sequences=sequences,
        seconds=sum(line.seconds for line in lines) if is_whole else None,
        tokens_per_second=_median([line.tokens_per_second for line in later]),
        seconds_to_first_step=first.seconds if first else None,
        data_wait_share=waited_seconds / later_seconds if later_seconds else None,
        skipped_updates=manifest["num_skipped"],
        mixture=mixture,
        seen=seen_by_source(phase, packed, run.seed),
        mfu_causal=_median([line.mfu_causal for line in later]),
        mfu_full=_median([line.mfu_full for line in later]),
        account=phase_account(folder),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None

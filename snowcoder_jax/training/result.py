"""What a finished phase did, read back from its metrics and manifest.

So a phase that was killed after its last step still has a result.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from snowcoder_jax import recipe, storage, strict
from snowcoder_jax.errors import InputError
from snowcoder_jax.packed import Packed
from snowcoder_jax.training import distributed
from snowcoder_jax.training.goodput import Account, phase_account
from snowcoder_jax.training.metrics import read_metrics
from snowcoder_jax.training.mixture import (
    ResolvedPart,
    SeenSource,
    resolve_mixture,
    seen_by_source,
)

RESULT = "result.json"


@dataclass(frozen=True)
class PhaseResult:
    """What a finished phase did.

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
    seconds: float
    tokens_per_second: float
    seconds_to_first_step: float
    data_wait_share: float
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
    """The result of a phase whose last step is saved; the first process makes it, for all.

    Raises:
      InputError: metrics.jsonl does not hold all steps of the phase.
    """

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
    if len(lines) != phase.num_steps:
        raise InputError(
            f"{metrics_path}: holds {len(lines)} of phase `{phase.name}`'s {phase.num_steps} "
            f"steps. Put the file back, or remove {folder} to train the phase anew."
        )
    later = lines[1:] or lines
    mixture = resolve_mixture(phase, packed)
    sequences = dict.fromkeys((part.selection for part in mixture), 0)
    for part in mixture:
        sequences[part.selection] += part.num_sequences
    return PhaseResult(
        phase=phase.name,
        steps=phase.num_steps,
        tokens=lines[-1].tokens,
        final_loss=lines[-1].loss,
        checkpoint=folder,
        sequences=sequences,
        seconds=sum(line.seconds for line in lines),
        tokens_per_second=statistics.median(line.tokens_per_second for line in later),
        seconds_to_first_step=lines[0].seconds,
        data_wait_share=sum(x.data_wait_seconds for x in later) / sum(x.seconds for x in later),
        skipped_updates=lines[-1].num_skipped,
        mixture=mixture,
        seen=seen_by_source(phase, packed, run.seed),
        mfu_causal=_median([line.mfu_causal for line in later]),
        mfu_full=_median([line.mfu_full for line in later]),
        account=phase_account(folder),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None

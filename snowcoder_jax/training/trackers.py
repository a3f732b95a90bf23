"""TensorBoard and Weights & Biases beside metrics.jsonl, where the recipe asks for them.

Both are told the steps of one phase, by process 0 alone, from a thread of their own: a tracker
that is slow, not logged in or without a network costs one warning and never a step of training.
The x-axis is the global step, so the phases of a run stand one after the other, and a control arm
over the phase that it mirrors.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from snowcoder_jax import recipe, storage
from snowcoder_jax.strict import Fault
from snowcoder_jax.training import distributed
from snowcoder_jax.training.metrics import StepMetrics

# Steps that may wait for a tracker; it is given up where it falls further behind than that.
_MAX_WAITING = 10_000
# How long the end of a phase waits for what a tracker still has to send.
_CLOSE_SECONDS = 30.0


class Tracker(Protocol):
    """Takes the figures of steps; may raise anything."""

    def log(self, global_step: int, values: dict[str, float]) -> None: ...

    def close(self) -> None: ...


def faults(tracking: recipe.Tracking) -> Iterator[Fault]:
    """What is asked for and not installed."""
    mend = "Install it: pip install 'snowcoder-jax[tracking]'."
    asked = {
        "tensorboard": ("tensorboardX", tracking.tensorboard),
        "wandb_project": ("wandb", tracking.wandb_project is not None),
    }
    for field, (package, is_asked) in asked.items():
        if is_asked and importlib.util.find_spec(package) is None:
            yield Fault(f"tracking.{field}", f"the package `{package}` is not installed", mend)


@contextlib.contextmanager
def tracked(
    run: recipe.Recipe, phase: recipe.Phase, run_folder: str, key: str, first_global_step: int
) -> Iterator[Callable[[StepMetrics], None]]:
    """Gives what takes the figures of each step, in order.

    Args:
      key: of all that decides what the phase learns: a phase that is trained anew with other
        settings is another run of W&B.
      first_global_step: of the first step that will come. Events of TensorBoard from there on,
        which a killed attempt left, are purged; W&B keeps what it was told first.
    """
    makers: dict[str, Callable[[], Tracker]] = {}
    if run.tracking.tensorboard and distributed.is_first():
        folder = storage.join(run_folder, "tensorboard", phase.name)
        makers["TensorBoard"] = functools.partial(_TensorBoard, folder, first_global_step)
    if run.tracking.wandb_project is not None and distributed.is_first():
        makers["W&B"] = functools.partial(_WeightsAndBiases, run, phase, run_folder, key)
    feeds = [_Feed(name, make) for name, make in makers.items()]

    def log(line: StepMetrics) -> None:
        for feed in feeds:
            feed.put(line)

    try:
        yield log
    finally:
        for feed in feeds:
            feed.close()


def _values(line: StepMetrics) -> dict[str, float]:
    figures = {
        "loss": line.loss,
        "learning_rate": line.learning_rate,
        "grad_norm": line.grad_norm,
        "tokens": line.tokens,
        "tokens_per_second": line.tokens_per_second,
        "mfu_causal": line.mfu_causal,
        "mfu_full": line.mfu_full,
        "z_loss": line.z_loss,
        "step_seconds": line.seconds,
        "data_wait_seconds": line.data_wait_seconds,
        "skipped_updates": line.num_skipped,
    }
    return {f"train/{name}": value for name, value in figures.items() if value is not None}


class _TensorBoard:
    def __init__(self, folder: str, first_global_step: int) -> None:
        from tensorboardX import SummaryWriter

        # Attempts that start in one second would otherwise share a file name.
        suffix = f".{first_global_step:09d}"
        self._writer = SummaryWriter(
            folder, purge_step=first_global_step, flush_secs=10, filename_suffix=suffix
        )

    def log(self, global_step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, global_step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    def __init__(self, run: recipe.Recipe, phase: recipe.Phase, run_folder: str, key: str) -> None:
        import wandb

        # Never a question on the terminal: nobody may be there to answer it.
        if wandb.setup().settings.mode == "online" and not wandb.login(prompt=False):
            raise ConnectionError("no login: run `wandb login`, or set WANDB_API_KEY")
        self._run: Any = wandb.init(
            project=run.tracking.wandb_project,
            group=run.name,
            name=f"{run.name} {phase.name}",
            id=recipe.fingerprint(os.path.abspath(run_folder), phase.name, key),
            resume="allow",
            dir=run_folder if storage.is_local(run_folder) else None,
            settings=wandb.Settings(console="off"),
        )

    def log(self, global_step: int, values: dict[str, float]) -> None:
        self._run.log(values, step=global_step)

    def close(self) -> None:
        self._run.finish()


class _Feed:
    """One tracker in a thread of its own."""

    def __init__(self, name: str, make: Callable[[], Tracker]) -> None:
        self._name = name
        self._lines: queue.Queue[StepMetrics | None] = queue.Queue(_MAX_WAITING)
        self._is_given_up = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(make,), name=name, daemon=True)
        self._thread.start()

    def put(self, line: StepMetrics) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._give_up(f"is {_MAX_WAITING} steps behind")

    def close(self) -> None:
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            self._give_up(f"is not through after {_CLOSE_SECONDS:.0f} s")

    def _work(self, make: Callable[[], Tracker]) -> None:
        try:
            tracker = make()
            while (line := self._lines.get()) is not None:
                if not self._is_given_up.is_set():
                    tracker.log(line.global_step, _values(line))
            tracker.close()
        except Exception as e:
            # Whatever is wrong with a service that only shows figures, training goes on.
            self._give_up(f"{type(e).__name__}: {e}")
            while self._lines.get() is not None:
                pass

    def _give_up(self, why: str) -> None:
        if not self._is_given_up.is_set():
            self._is_given_up.set()
            text = f"  {self._name}: {why}. Training goes on without it; see metrics.jsonl."
            print(text, file=sys.stderr, flush=True)

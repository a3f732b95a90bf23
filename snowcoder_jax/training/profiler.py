"""A profiler trace of some steps, on request (`tracking.profile_steps`)."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from snowcoder_jax import storage


@contextlib.contextmanager
def profiled(
    steps: Sequence[int], folder: str, first_step: int
) -> Iterator[Callable[[int, Any], None]]:
    """Traces the steps from `steps[0]` to `steps[1]`, counted from 1, and no part of another.

    Gives what has to be called after each step was handed to the device, as (its number, its
    metrics): at both ends of the trace it waits for them. An attempt that begins inside the range
    traces the rest of it; one that ends inside it keeps what there is.

    Args:
      steps: none for no trace.
      folder: where every process writes its file, local or a URL; TensorBoard's profile plugin
        and xprof read it.
      first_step: steps done when this attempt began.
    """
    last = steps[-1] if steps else 0
    before_first = max(steps[0] - 1, first_step) if steps else -1
    with contextlib.ExitStack() as trace:
        if before_first == first_step < last:
            trace.enter_context(_trace(folder))

        def after(step: int, metrics: Any) -> None:
            if step == before_first < last:
                jax.block_until_ready(metrics)
                trace.enter_context(_trace(folder))
            elif step == last:
                jax.block_until_ready(metrics)
                trace.close()

        yield after


@contextlib.contextmanager
def _trace(folder: str) -> Iterator[None]:
    if storage.is_local(folder):
        with jax.profiler.trace(folder):
            yield
        return
    # The profiler writes local files only.
    with tempfile.TemporaryDirectory() as local:
        with jax.profiler.trace(local):
            yield
        for path in storage.list_files(local):
            with open(path, "rb") as f:
                storage.write_bytes(storage.join(folder, os.path.relpath(path, local)), f.read())

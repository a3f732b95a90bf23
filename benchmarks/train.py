"""Our train step against transformers' LlamaForCausalLM in PyTorch, on synthetic tokens.

Every side of every comparison is a process of its own; start-up, compilation and the first step
are not counted. Prints each run, then one JSON object.

    bash launch/bench.sh train              two CPU threads, 6.9 M parameters, float32
    python benchmarks/train.py gpu          one GPU, the 1.36 B model at 8,192 tokens, bfloat16

The GPU part asks for JAX, Flax and Optax only, and for transformers and PyTorch on the other side,
which is left out where those are not there. It ends within ten minutes and prints its object after
our side and again after the other, so that a call cut short has shown what it measured.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

NUM_THREADS = 2
NUM_ROUNDS = 5
CPU_STEPS = 5
# Each side's fastest: a whole batch needs memory whose pages every step asks the system for anew.
CPU_MICROBATCHES = {"ours": 8, "pytorch": 2}
GPU_STEPS = 10
GPU_SECONDS = 180  # for one run, compiling included
GPU_DEADLINE_SECONDS = 540  # for all of them
# Batch size and remat, the likely best first; each is tried.
GPU_OURS = ((4, "minimal"), (2, "none"))
GPU_PYTORCH = ((2, "none"), (4, "full"))

_HERE = os.path.dirname(os.path.abspath(__file__))


class FailedRunError(RuntimeError):
    """A side ended with an error or took too long; the text says which and how."""


def run_side(side: str, *arguments: object, seconds: float | None = None) -> dict[str, Any]:
    """What `train_parts.<side>` prints, in a process of its own."""
    command = [sys.executable, "-m", f"train_parts.{side}", *map(str, arguments)]
    paths = [_HERE, os.path.dirname(_HERE), os.environ.get("PYTHONPATH", "")]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(NUM_THREADS))
    env = {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=seconds)
    except subprocess.TimeoutExpired as e:
        raise FailedRunError(f"{' '.join(command[2:])}: more than {seconds:.0f} s") from e
    if done.returncode:
        raise FailedRunError(
            f"{' '.join(command[2:])}: ended with {done.returncode}:\n{done.stderr[-2000:]}"
        )
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return printed


def cpu() -> dict[str, Any]:
    from train_parts.settings import CPU

    # Two cores for all: XLA has no other way to be told a number of threads.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:NUM_THREADS])
    rates: dict[str, list[float]] = {"ours": [], "pytorch": []}
    busy: dict[str, list[float]] = {"ours": [], "pytorch": []}
    for _ in range(NUM_ROUNDS):
        for side, found in rates.items():
            microbatches = CPU_MICROBATCHES[side]
            result = run_side(side, "cpu", CPU.batch_size, CPU_STEPS, "none", microbatches)
            found.append(CPU.tokens_per_step / statistics.median(result["seconds"]))
            busy[side].append(statistics.median(result["cpu_seconds"]))
            print(
                f"  {side}: {found[-1]:,.0f} tokens/s, {busy[side][-1]:.2f} s of processor time a "
                f"step, peak {result['peak_bytes'] / 1e9:.2f} GB",
                flush=True,
            )
    first_steps = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(2):
            result = run_side("first_step", folder, time.time())
            first_steps.append(result["seconds_to_first_step"])
    print(f"  first step of the local recipe after {first_steps[0]:.1f} s, then with the cache")
    pairs = zip(rates["ours"], rates["pytorch"], strict=True)
    return {
        "cpu_tokens_ratio_vs_pytorch": statistics.median(a / b for a, b in pairs),
        "cpu_tokens_per_second": statistics.median(rates["ours"]),
        "pytorch_tokens_per_second": statistics.median(rates["pytorch"]),
        "cpu_processor_time_ratio": statistics.median(busy["pytorch"])
        / statistics.median(busy["ours"]),
        "seconds_to_first_step": first_steps[-1],
    }


def gpu() -> dict[str, Any]:
    from snowcoder_jax.planning.chips import CHIPS, FAMILY_OF_DEVICE_KIND

    figures: dict[str, Any] = {}
    deadline = time.monotonic() + GPU_DEADLINE_SECONDS
    ours = fastest("ours", GPU_OURS, deadline)
    if ours is None:
        sys.exit("none of our runs ended well")
    rate, best = ours
    figures |= {"device": best["device"], "tokens_per_second": rate}
    family = FAMILY_OF_DEVICE_KIND.get(best["device"])
    if family is None:
        print(f"  no MFU: the peak of {best['device']} is not known here")
    else:
        for kind, flops in best["flops_per_token"].items():
            figures[f"mfu_{kind}"] = rate * flops / CHIPS[family].peak_flop_per_second
    figures["peak_bytes"] = best["peak_bytes"]
    show(figures)
    missing = [name for name in ("torch", "transformers") if not importlib.util.find_spec(name)]
    if missing:
        print(f"  no comparison: {' and '.join(missing)} not installed")
        return figures
    peer = fastest("pytorch", GPU_PYTORCH, deadline)
    if peer is not None:
        figures["pytorch_tokens_per_second"] = peer[0]
        figures["tokens_ratio_vs_pytorch"] = rate / peer[0]
    return figures


def fastest(
    side: str, tried: tuple[tuple[int, str], ...], deadline: float
) -> tuple[float, dict[str, Any]] | None:
    """Tokens a second and result of the fastest run; a run that fails is told and passed over."""
    from train_parts.settings import GPU

    best = None
    for batch_size, remat in tried:
        seconds = min(GPU_SECONDS, deadline - time.monotonic())
        if seconds <= 0:
            print(f"  {side}, {batch_size} sequences, remat {remat}: no time left", flush=True)
            continue
        try:
            result = run_side(side, "gpu", batch_size, GPU_STEPS, remat, 1, seconds=seconds)
        except FailedRunError as e:
            print(f"  {e}", flush=True)
            continue
        rate = batch_size * GPU.sequence_length / statistics.median(result["seconds"])
        print(
            f"  {side}, {batch_size} sequences, remat {remat}: {rate:,.0f} tokens/s, peak "
            f"{result['peak_bytes'] / 1e9:.1f} GB, loss {result['loss']:.3f}",
            flush=True,
        )
        if best is None or rate > best[0]:
            best = rate, result
    return best


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    if wanted not in ("cpu", "gpu"):
        sys.exit("Usage: python benchmarks/train.py [cpu | gpu]")
    show({"cpu": cpu, "gpu": gpu}[wanted]())


def show(figures: dict[str, Any]) -> None:
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    rounded = {n: round(x, 3) if isinstance(x, float) else x for n, x in figures.items()}
    print(json.dumps({"machine": machine, **rounded}), flush=True)


if __name__ == "__main__":
    main()

"""Which layouts to try, and the best of those that were compiled.

Layouts (sequences at once x what is recomputed) are ranked by arithmetic; at most three are
compiled, best first, and a layout that did not fit rules out those that need as much or more.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import get_args

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.planning import analytic, hlo
from snowcoder_jax.planning.analytic import Layout, Memory, Work
from snowcoder_jax.planning.chips import Chip, Topology
from snowcoder_jax.planning.topology import CompiledStep, compile_step

MAX_COMPILED = 3
# Arithmetic may be wrong by this much about memory: layouts up to here are still compiled.
_HEADROOM = 1.15
# A layout this much slower by arithmetic than one that fits is not worth compiling.
_NOT_WORTH = 1.1


@dataclasses.dataclass(frozen=True)
class Candidate:
    layout: Layout
    memory: Memory
    work: Work


@dataclasses.dataclass(frozen=True)
class Tried:
    """A candidate that was compiled.

    Attributes:
      cost: read from the compiled module; None where it does not fit.
      kernel_flop: of the attention kernels in one step on one chip.
      seconds: of one step: the compiler's cycles, and the kernels at full matrix rate.
      cautious_seconds: the kernels at `ATTENTION_EFFICIENCY`, and the collectives that stop the
        chip at the links' bandwidth.
    """

    candidate: Candidate
    step: CompiledStep
    cost: hlo.Cost | None = None
    kernel_flop: float = 0.0
    seconds: float = math.inf
    cautious_seconds: float = math.inf


def candidates(
    run: recipe.Recipe, phase: recipe.Phase, topology: Topology, mesh_sizes: dict[str, int]
) -> list[Candidate]:
    """Every layout of a phase's batch on a mesh, the fastest by arithmetic first.

    Raises:
      InputError: the batch cannot be split over the mesh.
    """
    num_groups = mesh_sizes["replica"] * mesh_sizes["fsdp"]
    if phase.batch_size % num_groups:
        raise InputError(
            f"phases.{phase.name}.batch_size: {phase.batch_size} sequences cannot be split over "
            f"replica x fsdp = {num_groups} on {topology.name}. Set hardware.mesh.context or "
            f"hardware.mesh.tensor so that they divide it, or choose a smaller topology."
        )
    rows = phase.batch_size // num_groups
    found = []
    for rows_at_once in analytic.divisors(rows):
        for remat in get_args(recipe.Remat):
            layout = Layout(remat, rows // rows_at_once, rows_at_once)
            found.append(
                Candidate(
                    layout,
                    analytic.memory(
                        run.model,
                        run.tokenizer.vocab_size,
                        layout,
                        mesh_sizes,
                        phase.sequence_length,
                        run.hardware.loss_chunk_tokens,
                    ),
                    analytic.work(
                        run.model,
                        run.tokenizer.vocab_size,
                        layout,
                        mesh_sizes,
                        phase.sequence_length,
                        topology,
                    ),
                )
            )
    return sorted(found, key=lambda c: (c.work.seconds, c.memory.total))


def to_compile(
    ranked: Sequence[Candidate], tried: Sequence[Tried], hbm_bytes: int
) -> Candidate | None:
    """The next layout worth compiling; None when the search is done.

    Of each way to recompute only the number of sequences that ranks first is compiled, unless it
    did not fit; where none has fitted, the last one is the smallest of all.
    """
    if len(tried) == MAX_COMPILED:
        return None
    limit = min(
        [hbm_bytes * _HEADROOM, *(t.candidate.memory.total for t in tried if not t.step.fits)]
    )
    fitted = [t.candidate for t in tried if t.step.fits]
    least = min(ranked, key=lambda c: c.memory.total)
    if len(tried) == MAX_COMPILED - 1 and not fitted:
        return least if least.memory.total < limit else None
    for candidate in ranked:
        if candidate.memory.total >= limit:
            continue
        if candidate.layout.remat in {c.layout.remat for c in fitted}:
            continue
        if fitted and candidate.work.seconds > _NOT_WORTH * fitted[0].work.seconds:
            return None
        return candidate
    if not tried:
        # Nothing fits by arithmetic: the compiler shall say by how much.
        return least
    return None


def search(
    run: recipe.Recipe,
    phase: recipe.Phase,
    topology: Topology,
    mesh: object,
    mesh_sizes: dict[str, int],
    say: Callable[[str], None],
) -> list[Tried]:
    """Compile the layouts worth it; the best first, those that do not fit last."""
    ranked = candidates(run, phase, topology, mesh_sizes)
    tried: list[Tried] = []
    while (candidate := to_compile(ranked, tried, topology.chip.hbm_bytes)) is not None:
        say(f"compiling {candidate.layout} for {topology.name} ...")
        tried.append(compiled(run, phase, topology, mesh, mesh_sizes, candidate))
    return sorted(tried, key=lambda t: (t.seconds, t.step.peak_bytes))


def compiled(
    run: recipe.Recipe,
    phase: recipe.Phase,
    topology: Topology,
    mesh: object,
    mesh_sizes: dict[str, int],
    candidate: Candidate,
) -> Tried:
    """Compile one layout, and read what it costs."""
    hardware = dataclasses.replace(
        run.hardware,
        remat=candidate.layout.remat,
        microbatches=candidate.layout.microbatches,
    )
    step = compile_step(
        run.model,
        run.tokenizer.vocab_size,
        run.optimizer,
        hardware,
        mesh,
        phase.batch_size,
        phase.sequence_length,
    )
    return timed(candidate, step, run.model, phase.sequence_length, mesh_sizes, topology)


def timed(
    candidate: Candidate,
    step: CompiledStep,
    model: recipe.Model,
    sequence_length: int,
    mesh_sizes: dict[str, int],
    topology: Topology,
) -> Tried:
    """What the compiled text says of time."""
    if not step.fits:
        return Tried(candidate, step)
    chip = topology.chip
    assert chip.clock_hz is not None, "only TPU programs carry cycles"
    cost = hlo.module_cost(step.hlo)
    flop = kernel_flop(cost, model, candidate.layout.rows_per_chip, sequence_length, mesh_sizes)
    cycles = cost.cycles / chip.clock_hz
    at_peak = flop / chip.peak_flop_per_second
    waiting = sum(c.synchronous_bytes for c in cost.collectives.values())
    return Tried(
        candidate,
        step,
        cost,
        flop,
        seconds=cycles + at_peak,
        cautious_seconds=cycles
        + at_peak / analytic.ATTENTION_EFFICIENCY[chip.kind]
        + waiting / chip.link_bytes_per_second,
    )


def kernel_flop(
    cost: hlo.Cost,
    model: recipe.Model,
    rows: int,
    sequence_length: int,
    mesh_sizes: dict[str, int],
) -> float:
    """Floating-point operations of the attention kernels, causal half of each product.

    The forward kernel makes 2 products, the backward kernel of keys and values 4 (5 where it
    also makes the queries' gradient), the one of queries 3.

    Raises:
      ValueError: a kernel that is not known here.
    """
    heads = model.num_heads * model.head_dim / mesh_sizes["tensor"]
    one_product = rows * 2 * sequence_length**2 / 2 * heads / mesh_sizes["context"]
    is_fused = not any("_dq" in name for name in cost.kernels)
    total = 0.0
    for name, num in cost.kernels.items():
        if "_fwd" in name:
            products = 2
        elif "_dkv" in name:
            products = 5 if is_fused else 4
        elif "_dq" in name:
            products = 3
        else:
            raise ValueError(f"a kernel whose work is not known: {name}")
        total += num * products * one_product
    return total


def smallest(chip: Chip, ranked: Sequence[Candidate]) -> Candidate:
    """The fastest by arithmetic that fits a chip; where none does, the one that needs least."""
    fitting = [c for c in ranked if c.memory.total <= chip.hbm_bytes]
    return fitting[0] if fitting else min(ranked, key=lambda c: c.memory.total)

"""A phase of a recipe on a topology: does it fit, how fast is it, what does it cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType

from snowcoder_jax import recipe
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import decoder
from snowcoder_jax.planning.chips import Topology, parse_topology
from snowcoder_jax.planning.search import Candidate, Tried, candidates, search, smallest
from snowcoder_jax.training.mesh import AXES, check_batch, check_divides, make_mesh, shardings

SECONDS_PER_HOUR = 3_600.0
HOURS_PER_DAY = 24.0


@dataclasses.dataclass(frozen=True)
class PhaseCost:
    """A whole phase at the planned speed.

    Attributes:
      is_scaled: its batches have another shape than the planned ones, so that its time is the
        planned one scaled by the model's operations.
    """

    name: str
    num_steps: int
    tokens: int
    days: float
    chip_hours: float
    is_scaled: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is known of a phase on a topology.

    Attributes:
      mesh: size of each axis.
      best: the layout named; what arithmetic says of it.
      tried: what was compiled, the fastest first; empty for GPUs.
      fits: `best` in the chips' memory.
      peak_bytes: of one chip.
      step_seconds: the compiler's cycles and the attention kernels at full matrix rate; by
        arithmetic where nothing was compiled. Infinite where it does not fit.
      cautious_step_seconds: the kernels at a stated efficiency and with the collectives that
        stop the chip.
      num_parameters: of the model.
      flop_per_step: of the whole topology, causal attention, nothing recomputed.
    """

    run: recipe.Recipe
    phase: recipe.Phase
    topology: Topology
    mesh: dict[str, int]
    best: Candidate
    tried: tuple[Tried, ...]
    fits: bool
    peak_bytes: int
    step_seconds: float
    cautious_step_seconds: float
    num_parameters: int
    flop_per_step: float

    @property
    def tokens_per_second(self) -> float:
        return self.phase.tokens_per_step / self.step_seconds

    @property
    def mfu_causal(self) -> float:
        """Model FLOP/s utilisation, causal attention counted, nothing recomputed."""
        peak = self.topology.num_chips * self.topology.chip.peak_flop_per_second
        return self.flop_per_step / (self.step_seconds * peak)

    def phase_costs(self) -> list[PhaseCost]:
        """Every phase of the recipe and its control arms, at the speed of the planned one."""
        flop_per_second = self.flop_per_step / self.step_seconds
        costs = []
        for phase in self.run.all_phases():
            seconds = flop_per_phase(self.run, phase) / flop_per_second
            shape = (phase.batch_size, phase.sequence_length)
            costs.append(
                PhaseCost(
                    phase.name,
                    phase.num_steps,
                    phase.tokens,
                    seconds / SECONDS_PER_HOUR / HOURS_PER_DAY,
                    seconds / SECONDS_PER_HOUR * self.topology.num_chips,
                    is_scaled=shape != (self.phase.batch_size, self.phase.sequence_length),
                )
            )
        return costs


def make_plan(
    run: recipe.Recipe, phase_name: str | None, topology_name: str, say: Callable[[str], None]
) -> Plan:
    """Plan one phase (default: the first) of a recipe.

    Args:
      say: told what is being done; compiling takes a minute or more for each layout.

    Raises:
      InputError: an unknown phase or topology, a mesh or batch that does not divide, no libtpu, a
        base model that is still a placeholder.
    """
    if recipe.PLACEHOLDER in (run.base_model or ""):
        raise InputError(
            f"base_model: `{run.base_model}` is a placeholder, and the model to plan is read from "
            "there. Put the folder of your own base model there."
        )
    names = [phase.name for phase in run.all_phases()]
    if phase_name is not None and phase_name not in names:
        raise InputError(f"--phase {phase_name}: no such phase. Take one of {', '.join(names)}.")
    phase = run.phase(phase_name or names[0])
    topology = parse_topology(topology_name)
    mesh_sizes = sizes(run.hardware.mesh, topology)
    ranked = candidates(run, phase, topology, mesh_sizes)
    _check_divides(run, phase, mesh_sizes)
    tried: list[Tried] = []
    if topology.chip.kind == "tpu":
        from snowcoder_jax.planning.topology import devices

        mesh = make_mesh(run.hardware.mesh, devices(topology))
        tried = search(run, phase, topology, mesh, mesh_sizes, say)
    if tried:
        best, fits = tried[0].candidate, tried[0].step.fits
        peak_bytes = tried[0].step.peak_bytes
        seconds, cautious = tried[0].seconds, tried[0].cautious_seconds
    else:
        best = smallest(topology.chip, ranked)
        peak_bytes = best.memory.total
        fits = peak_bytes <= topology.chip.hbm_bytes
        seconds = cautious = best.work.seconds if fits else math.inf
    return Plan(
        run,
        phase,
        topology,
        mesh_sizes,
        best,
        tuple(tried),
        fits,
        peak_bytes,
        seconds,
        cautious,
        decoder.num_parameters(run.model, run.tokenizer.vocab_size),
        flop_per_phase(run, phase) / phase.num_steps,
    )


def _check_divides(run: recipe.Recipe, phase: recipe.Phase, mesh_sizes: dict[str, int]) -> None:
    """Raises InputError where an axis does not divide what training would split along it."""
    sizes = tuple(mesh_sizes[axis] for axis in AXES)
    mesh: Any = AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES))
    check_batch(phase, mesh, 1)
    vocab_size = run.tokenizer.vocab_size
    shapes = jax.eval_shape(lambda: decoder.init_params(run.model, vocab_size, 0))
    check_divides(mesh, shardings(mesh, decoder.logical_axes(run.model)), shapes)


def flop_per_phase(run: recipe.Recipe, phase: recipe.Phase) -> float:
    per_token = decoder.flops_per_token(
        run.model, run.tokenizer.vocab_size, phase.sequence_length, causal=True
    )
    return per_token * phase.tokens_per_step * phase.num_steps


def sizes(config: recipe.Mesh, topology: Topology) -> dict[str, int]:
    """The size of each mesh axis on a topology.

    Raises:
      InputError: they do not multiply to its chips.
    """
    given: dict[str, int] = dataclasses.asdict(config)
    fixed = math.prod(size for size in given.values() if size != -1)
    rest = topology.num_chips // fixed if fixed > 0 else 0
    found = {axis: rest if size == -1 else size for axis, size in given.items()}
    if math.prod(found.values()) != topology.num_chips:
        written = ", ".join(f"{axis} {size}" for axis, size in given.items())
        raise InputError(
            f"hardware.mesh: {written} does not multiply to the {topology.num_chips} chips of "
            f"{topology.name}. Set one axis to -1 to take what is left."
        )
    return found

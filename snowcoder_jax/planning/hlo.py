"""What an optimized HLO module of a train step costs, read from its text.

The TPU compiler writes `estimated_cycles` on every fusion and copy of its schedule. They are
summed over the schedule: a loop counts as often as it turns, a conditional by its dearest
branch, a call by what it calls; what lies inside a fusion is part of the fusion's own figure.
Two things carry no cycles and are listed apart: kernels (custom calls), whose floating-point
operations the caller knows, and collectives, of which those that are not split into a start and
a done stop the chip while they run.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re

from snowcoder_jax.planning.hlo_scalars import Scalars, trip_count
from snowcoder_jax.planning.hlo_text import (
    Computation,
    Instruction,
    Module,
    array_dims,
    num_bytes,
    parse,
)

_COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "collective-broadcast",
    "ragged-all-to-all",
)


@dataclasses.dataclass
class Collective:
    """All collectives of one kind in one step, on one chip.

    Attributes:
      num: how many are run.
      num_bytes: the larger of what goes in and what comes out, summed over the runs.
      synchronous_bytes: the part of it during which the chip does nothing else.
    """

    num: int = 0
    num_bytes: int = 0
    synchronous_bytes: int = 0


@dataclasses.dataclass
class Cost:
    """One run of a module on one chip.

    Attributes:
      cycles: the compiler's estimate of all fusions and copies.
      matmul_flop: of the matrix products with weights (and convolutions) in them.
      rotation_flop: of products inside `jax.named_scope("rotation")`, where rotary positions are
        a product with a signed permutation: no work of the model's.
      kernels: how often each kernel runs, by the name of its call site.
      collectives: by kind.
      cycles_by_source: the cycles again, by the operation in the program that they come from.
    """

    cycles: int = 0
    matmul_flop: int = 0
    rotation_flop: int = 0
    kernels: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    collectives: dict[str, Collective] = dataclasses.field(default_factory=dict)
    cycles_by_source: collections.Counter[str] = dataclasses.field(
        default_factory=collections.Counter
    )

    def add(self, other: Cost, times: int) -> None:
        self.cycles += other.cycles * times
        self.matmul_flop += other.matmul_flop * times
        self.rotation_flop += other.rotation_flop * times
        for name, num in other.kernels.items():
            self.kernels[name] += num * times
        for name, cycles in other.cycles_by_source.items():
            self.cycles_by_source[name] += cycles * times
        for kind, theirs in other.collectives.items():
            ours = self.collectives.setdefault(kind, Collective())
            ours.num += theirs.num * times
            ours.num_bytes += theirs.num_bytes * times
            ours.synchronous_bytes += theirs.synchronous_bytes * times


def module_cost(text: str) -> Cost:
    """The cost of `compiled.as_text()`.

    Raises:
      UnknownScalarError: a loop turns as often as data say.
    """
    module = parse(text)
    entry = module.computations[module.entry]
    return _schedule_cost(module, entry, Scalars(module, entry, None))


def _schedule_cost(module: Module, computation: Computation, scalars: Scalars) -> Cost:
    cost = Cost()
    for instruction in computation.instructions.values():
        opcode = instruction.opcode
        if opcode == "while":
            body = module.computations[instruction.called("body")]
            trips = trip_count(module, scalars, instruction)
            # A loop inside it is taken to turn as often at every turn as at the first.
            first_turn = Scalars(module, body, [lambda i=instruction: scalars.value(i.operands[0])])
            cost.add(_schedule_cost(module, body, first_turn), trips)
        elif opcode == "conditional":
            branches = []
            for name, operand in zip(instruction.branches, instruction.operands[1:], strict=True):
                branch = module.computations[name]
                argument = Scalars(module, branch, [lambda o=operand: scalars.value(o)])
                branches.append(_schedule_cost(module, branch, argument))
            cost.add(max(branches, key=lambda branch: branch.cycles), 1)
        elif opcode == "call":
            called = module.computations[instruction.called("to_apply")]
            arguments = [(lambda o=o: scalars.value(o)) for o in instruction.operands]
            cost.add(_schedule_cost(module, called, Scalars(module, called, arguments)), 1)
        else:
            cost.add(_instruction_cost(module, computation, instruction), 1)
    return cost


def _instruction_cost(module: Module, computation: Computation, instruction: Instruction) -> Cost:
    cost = Cost()
    opcode = instruction.opcode
    if instruction.estimated_cycles:
        cost.cycles = instruction.estimated_cycles
        cost.cycles_by_source[_source(instruction)] = instruction.estimated_cycles
    if opcode == "custom-call" and 'custom_call_target="tpu_custom_call"' in instruction.attributes:
        cost.kernels[_source(instruction)] = 1
    elif opcode == "fusion" or opcode == "async-start":
        is_started = module.computations[instruction.called("calls")].starts_collective
        for collective in _add_inside(cost, module, instruction.called("calls")):
            _count(cost, collective, is_synchronous=opcode == "fusion" and not is_started)
    elif opcode in ("convolution", "dot"):
        _add_product(cost, computation, instruction)
    kind = opcode.removesuffix("-start")
    if kind in _COLLECTIVES:
        _count(cost, (kind, _moved(computation, instruction)), is_synchronous=kind == opcode)
    return cost


def _count(cost: Cost, collective: tuple[str, int], *, is_synchronous: bool) -> None:
    kind, moved = collective
    total = cost.collectives.setdefault(kind, Collective())
    total.num += 1
    total.num_bytes += moved
    total.synchronous_bytes += moved if is_synchronous else 0


def _add_inside(cost: Cost, module: Module, name: str) -> list[tuple[str, int]]:
    """Add the products in a fused computation; returns kind and bytes of its collectives."""
    collectives: list[tuple[str, int]] = []
    computation = module.computations[name]
    for instruction in computation.instructions.values():
        if instruction.opcode in ("convolution", "dot"):
            _add_product(cost, computation, instruction)
        elif instruction.opcode in _COLLECTIVES:
            if computation.starts_collective or instruction.channel not in module.started_channels:
                collectives.append((instruction.opcode, _moved(computation, instruction)))
        elif instruction.opcode in ("fusion", "call"):
            attribute = "calls" if instruction.opcode == "fusion" else "to_apply"
            collectives += _add_inside(cost, module, instruction.called(attribute))
    return collectives


def _add_product(cost: Cost, computation: Computation, instruction: Instruction) -> None:
    flop = _matmul_flop(computation, instruction)
    if "/rotation/" in _source(instruction):
        cost.rotation_flop += flop
    else:
        cost.matmul_flop += flop


def _moved(computation: Computation, instruction: Instruction) -> int:
    """The larger of what goes into a collective and what comes out, in bytes."""
    going_in = sum(num_bytes(computation.instructions[name].type) for name in instruction.operands)
    coming_out = num_bytes(instruction.type)
    if instruction.opcode.endswith("-start") and instruction.opcode != "all-reduce-start":
        # The tuple of a start holds what went in besides what comes out.
        coming_out -= going_in
    return max(going_in, coming_out)


def _source(instruction: Instruction) -> str:
    """The program's own name for what an instruction computes, as XLA carries it along."""
    found = re.search(r'op_name="([^"]*)"', instruction.attributes)
    return found[1] if found else instruction.opcode


def _matmul_flop(computation: Computation, instruction: Instruction) -> int:
    """2 x multiply-adds. Positions of a convolution's window that fall on padding are not work.

    The TPU compiler writes matrix products over several dims as convolutions with padding.
    """
    shapes = [
        next(array_dims(computation.instructions[name].type)) for name in instruction.operands
    ]
    if instruction.opcode == "dot":
        found = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
        contracted = [int(d) for d in found[1].split(",")] if found and found[1] else []
        return 2 * math.prod(instruction.dims) * math.prod(shapes[0][dim] for dim in contracted)
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    assert labels, instruction
    data, kernel, result = labels.groups()
    window = dict(re.findall(r"(\w+)=([\dx_-]+)", _window(instruction)))
    num = 2 * instruction.dims[result.index("b")] * instruction.dims[result.index("f")]
    num *= shapes[1][kernel.index("i")]
    num_spatial = len(kernel) - 2
    for spatial in range(num_spatial):
        label = str(spatial)

        def of(name: str, default: str, spatial: int = spatial) -> str:
            return window[name].split("x")[spatial] if name in window else default

        low, _, _ = of("pad", "0_0").partition("_")
        stride, lhs_dilate = int(of("stride", "1")), int(of("lhs_dilate", "1"))
        num *= _num_valid(
            num_in=shapes[0][data.index(label)],
            num_out=instruction.dims[result.index(label)],
            size=int(of("size", "1")),
            low=int(low),
            stride=stride,
            lhs_dilate=lhs_dilate,
            rhs_dilate=int(of("rhs_dilate", "1")),
        )
    return num


def _window(instruction: Instruction) -> str:
    found = re.search(r"window=\{([^}]*)\}", instruction.attributes)
    return found[1] if found else ""


def _num_valid(
    *, num_in: int, num_out: int, size: int, low: int, stride: int, lhs_dilate: int, rhs_dilate: int
) -> int:
    """Pairs of output and window position that meet an input element."""
    num = 0
    for place in range(size):
        for out in range(num_out):
            position = out * stride + place * rhs_dilate - low
            num += position % lhs_dilate == 0 and 0 <= position // lhs_dilate < num_in
    return num

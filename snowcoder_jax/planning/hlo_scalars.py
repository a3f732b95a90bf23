"""How often a loop of optimized HLO runs: its condition and body, run on their scalars alone.

The TPU compiler writes no trip count, and a loop's counter need not step by one (ring loops of
collective matrix products step by two), so the few scalars that the condition looks at are
computed, turn by turn, and nothing else of the body.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from typing import Any

from snowcoder_jax.planning.hlo_text import Computation, Instruction, Module

_MAX_TRIPS = 100_000
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "EQ": operator.eq,
    "NE": operator.ne,
    "LT": operator.lt,
    "LE": operator.le,
    "GT": operator.gt,
    "GE": operator.ge,
}
_BINARY: dict[str, Callable[[int, int], int]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "and": operator.and_,
    "or": operator.or_,
    "xor": operator.xor,
    "minimum": min,
    "maximum": max,
    "divide": lambda a, b: int(a / b),
    "remainder": lambda a, b: a - b * int(a / b),
}
_SAME = {"copy", "bitcast", "convert", "copy-start", "copy-done", "reshape", "broadcast"}


class UnknownScalarError(ValueError):
    """A loop's condition depends on something that is not a scalar known at compile time."""


def trip_count(module: Module, scalars: Scalars, loop: Instruction) -> int:
    """How often the body of the `while` instruction `loop` runs.

    Args:
      scalars: of the computation that the loop stands in.

    Raises:
      UnknownScalarError: the count depends on data.
    """
    condition = module.computations[loop.called("condition")]
    body = module.computations[loop.called("body")]
    state = scalars.value(loop.operands[0])
    for trip in range(_MAX_TRIPS):
        if not Scalars(module, condition, [state]).value(condition.root):
            return trip
        state = Scalars(module, body, [state]).value(body.root)
    raise UnknownScalarError(f"{loop.name}: more than {_MAX_TRIPS} turns")


class Scalars:
    """The scalars of one run of a computation, each made when it is first asked for.

    Args:
      arguments: a value or a thunk for each parameter; None where they are not known.
    """

    def __init__(
        self, module: Module, computation: Computation, arguments: Sequence[Any] | None
    ) -> None:
        self._module = module
        self._computation = computation
        self._arguments = arguments
        self._values: dict[str, Any] = {}

    def value(self, name: str) -> Any:
        if name not in self._values:
            self._values[name] = self._evaluate(self._computation.instructions[name])
        return self._values[name]

    def _evaluate(self, instruction: Instruction) -> Any:
        opcode, operands = instruction.opcode, instruction.operands
        if opcode == "constant":
            return _constant(instruction)
        if opcode == "parameter" and self._arguments is not None:
            argument = self._arguments[int(instruction.argument)]
            return argument() if callable(argument) else argument
        if opcode == "tuple":
            return {
                index: (lambda name=name: self.value(name)) for index, name in enumerate(operands)
            }
        if opcode == "get-tuple-element":
            found = re.search(r"index=(\d+)", instruction.attributes)
            assert found, instruction
            # A tuple is a dict of thunks, so that only what is asked for is computed.
            element = self.value(operands[0])[int(found[1])]
            return element() if callable(element) else element
        if opcode in _SAME or opcode == "opt-barrier":
            return self.value(operands[0])
        if opcode in _BINARY:
            return _BINARY[opcode](self.value(operands[0]), self.value(operands[1]))
        if opcode == "compare":
            found = re.search(r"direction=(\w+)", instruction.attributes)
            assert found, instruction
            return _COMPARED[found[1]](self.value(operands[0]), self.value(operands[1]))
        if opcode == "not":
            return not self.value(operands[0])
        if opcode == "negate":
            return -self.value(operands[0])
        if opcode == "select":
            return self.value(operands[1] if self.value(operands[0]) else operands[2])
        if opcode in ("fusion", "call"):
            called = instruction.called("calls" if opcode == "fusion" else "to_apply")
            computation = self._module.computations[called]
            arguments = [(lambda name=name: self.value(name)) for name in operands]
            return Scalars(self._module, computation, arguments).value(computation.root)
        raise UnknownScalarError(f"{instruction.name}: {opcode} is not a known scalar")


def _constant(instruction: Instruction) -> int:
    written = instruction.argument.strip("{} ")
    if written in ("true", "false"):
        return int(written == "true")
    try:
        return int(written)
    except ValueError as e:
        raise UnknownScalarError(f"{instruction.name}: constant {written[:40]}") from e

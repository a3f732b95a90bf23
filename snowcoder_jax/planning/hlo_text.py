"""The text of an optimized HLO module, taken apart: computations, instructions, shapes.

Only what the cost of a schedule needs is read; layouts and metadata stay text.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

# Bytes of one element; types of four bits and less do not occur in training steps.
_ELEMENT_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "f16": 2,
    "bf16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
    "token": 0,
}
_ARRAY = re.compile(r"([a-z]+[0-9]*)\[([0-9,]*)\]")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.-]+) = ")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\{$")
_NAME = re.compile(r"%([\w.-]+)")


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation.

    Attributes:
      type: the result's type as written, such as `f32[2,128]{1,0}` or a tuple of such.
      operands: names of instructions of the same computation.
      argument: what stands between the parentheses, for constants and parameters.
      attributes: all that follows them, as text.
    """

    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    argument: str
    attributes: str

    @functools.cached_property
    def dims(self) -> tuple[int, ...]:
        """The result's dims; of a tuple, those of its first array."""
        return next(iter(array_dims(self.type)))

    def called(self, attribute: str) -> str:
        """The computation named by an attribute such as `calls`, `body`, `condition`."""
        found = re.search(rf"\b{attribute}=%?([\w.-]+)", self.attributes)
        assert found, f"{self.name}: no {attribute}"
        return found[1]

    @functools.cached_property
    def branches(self) -> tuple[str, ...]:
        """The computations of a conditional."""
        found = re.search(r"branch_computations=\{([^}]*)\}", self.attributes)
        if found:
            return tuple(_NAME.findall(found[1]))
        return self.called("true_computation"), self.called("false_computation")

    @functools.cached_property
    def channel(self) -> str:
        """Of a collective; empty for anything else."""
        found = re.search(r"channel_id=(\d+)", self.attributes)
        return found[1] if found else ""

    @functools.cached_property
    def estimated_cycles(self) -> int:
        """The compiler's own estimate; 0 where it makes none."""
        found = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        return int(found[1]) if found else 0


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in schedule order; the name of its root; its parameters in order."""

    instructions: dict[str, Instruction]
    root: str
    parameters: tuple[str, ...]

    @functools.cached_property
    def starts_collective(self) -> bool:
        """Whether it is a fusion's that begins a collective, to go on beside other work."""
        return any('"AsyncCollectiveStart"' in i.attributes for i in self.instructions.values())


@dataclasses.dataclass(frozen=True)
class Module:
    computations: dict[str, Computation]
    entry: str

    @functools.cached_property
    def started_channels(self) -> set[str]:
        """Channels of collectives that are begun in one fusion, and named again in those beside
        which they run and in the one that waits for them."""
        return {
            i.channel
            for computation in self.computations.values()
            if computation.starts_collective
            for i in computation.instructions.values()
            if i.channel
        }


def parse(text: str) -> Module:
    """Read `compiled.as_text()`."""
    computations: dict[str, Computation] = {}
    entry = ""
    lines: list[str] = []
    name = ""
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            name, lines = header[2], []
            entry = name if header[1] else entry
        elif line == "}" and name:
            computations[name] = _computation(lines)
            name = ""
        elif _INSTRUCTION.match(line):
            lines.append(line)
        elif lines:
            # A kernel's metadata may hold line breaks.
            lines[-1] += line
    assert entry, "no ENTRY computation: not the text of an HLO module"
    return Module(computations, entry)


def _computation(lines: list[str]) -> Computation:
    instructions = [_instruction(line) for line in lines]
    root = next(i.name for i, line in zip(instructions, lines, strict=True) if "ROOT " in line[:9])
    parameters = sorted(
        (i for i in instructions if i.opcode == "parameter"), key=lambda i: int(i.argument)
    )
    return Computation({i.name: i for i in instructions}, root, tuple(i.name for i in parameters))


def _instruction(line: str) -> Instruction:
    start = _INSTRUCTION.match(line)
    assert start, line
    rest = line[start.end() :]
    end = _closing(rest, 0) + 1 if rest[0] == "(" else rest.index(" ")
    opened = rest.index("(", end)
    closed = _closing(rest, opened)
    argument = rest[opened + 1 : closed]
    return Instruction(
        name=start[2],
        type=rest[:end],
        opcode=rest[end:opened].strip(),
        operands=tuple(_NAME.findall(argument)),
        argument=argument,
        attributes=rest[closed + 1 :],
    )


def _closing(text: str, opened: int) -> int:
    """Where the parenthesis opened at `opened` is closed."""
    depth = 0
    for match in re.compile(r"[()]").finditer(text, opened):
        depth += 1 if match[0] == "(" else -1
        if depth == 0:
            return match.start()
    raise AssertionError(f"no closing parenthesis: {text[:80]}")


def array_dims(type_text: str) -> Iterator[tuple[int, ...]]:
    """The dims of each array in a type."""
    for _, dims in _ARRAY.findall(type_text):
        yield tuple(int(dim) for dim in dims.split(",") if dim)


def num_bytes(type_text: str) -> int:
    """The bytes of all arrays in a type, padding not counted."""
    total = 0
    for element, dims in _ARRAY.findall(type_text):
        if element in _ELEMENT_BYTES:
            total += _ELEMENT_BYTES[element] * math.prod(int(d) for d in dims.split(",") if d)
    return total

"""What chips have: memory, bandwidth, matrix rate; and how the names of topologies read.

Sources. TPU: the pages "TPU v4", "TPU v5e", "TPU v5p" and "TPU v6e" of Google Cloud's documentation
(docs.cloud.google.com/tpu/docs) for bandwidth, peak and links, of which they give both directions
together; the usable memory is what libtpu 0.0.42 gives as "available HBM" when a program does not
fit, and the clock is the one at which the compiler's cycles of a large matrix product meet the peak
(v5e and v5p within 3%; those of v4 were not tried, those of v6e would meet it at 2.15 GHz, so that
its times are a guess). GPU: NVIDIA's data sheets of the H100 SXM, H200 SXM and HGX B200, without
sparsity; the links are NVLink's. Between GPU hosts one 400 Gbit/s network adapter a GPU is assumed,
which is chosen: what NVIDIA builds into its own machines, and most clouds offer.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Literal

from snowcoder_jax.errors import InputError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One chip; a TPU chip is one device to JAX from v4 on.

    Attributes:
      hbm_bytes: what a program may use.
      hbm_bytes_per_second: bandwidth of that memory.
      peak_flop_per_second: bfloat16 matrix products, dense.
      link_bytes_per_second: to other chips of the slice or machine, one direction, all links.
      network_bytes_per_second: to other hosts, one direction; None for TPUs, whose links join the
        hosts of a slice.
      clock_hz: of the cycles that the TPU compiler estimates; None for GPUs.
      num_dims: of the names of its topologies; 0 for GPUs.
      chips_per_host: of a slice of more than one host.
    """

    family: str
    kind: Literal["tpu", "gpu"]
    hbm_bytes: int
    hbm_bytes_per_second: float
    peak_flop_per_second: float
    link_bytes_per_second: float
    network_bytes_per_second: float | None
    clock_hz: float | None
    num_dims: int
    chips_per_host: int


CHIPS = {
    chip.family: chip
    for chip in (
        Chip("v4", "tpu", int(30.5 * GIB), 1.228e12, 275e12, 300e9, None, 1.05e9, 3, 4),
        Chip("v5e", "tpu", int(15.75 * GIB), 0.819e12, 197e12, 200e9, None, 1.5e9, 2, 4),
        Chip("v5p", "tpu", int(95.74 * GIB), 2.765e12, 459e12, 600e9, None, 1.75e9, 3, 4),
        Chip("v6e", "tpu", int(31.25 * GIB), 1.638e12, 918e12, 400e9, None, 1.75e9, 2, 4),
        Chip("H100", "gpu", 80 * 10**9, 3.35e12, 989e12, 450e9, 50e9, None, 0, 8),
        Chip("H200", "gpu", 141 * 10**9, 4.8e12, 989e12, 450e9, 50e9, None, 0, 8),
        Chip("B200", "gpu", 180 * 10**9, 7.7e12, 2250e12, 900e9, 50e9, None, 0, 8),
    )
}

# The family of what JAX reports as `device_kind`. Other models of a GPU's family (H100 PCIe, NVL)
# have other peaks, so the whole name must be the same.
FAMILY_OF_DEVICE_KIND = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "NVIDIA H100 80GB HBM3": "H100",
    "NVIDIA H200": "H200",
    "NVIDIA B200": "B200",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips that are wired together, such as `v5p:4x4x4` or `H100:8`."""

    name: str
    chip: Chip
    num_chips: int

    @property
    def num_hosts(self) -> int:
        return math.ceil(self.num_chips / self.chip.chips_per_host)


def parse_topology(name: str) -> Topology:
    """Read `FAMILY:AxBxC` (TPU) or `FAMILY:N` (GPU).

    Raises:
      InputError: an unknown family, or a shape that its topologies do not have.
    """
    family, _, shape = name.partition(":")
    chip = CHIPS.get(family)
    if chip is None:
        raise InputError(
            f"--topology {name}: {family!r} is no chip known here. Take one of "
            f"{', '.join(CHIPS)}, as in v5p:4x4x4 or H100:8."
        )
    dims = shape.split("x")
    wanted = max(chip.num_dims, 1)
    if len(dims) != wanted or not all(re.fullmatch("[1-9][0-9]*", dim) for dim in dims):
        example = "x".join(["4"] * wanted) if chip.kind == "tpu" else "8"
        raise InputError(
            f"--topology {name}: the shape of a {family} topology is {wanted} size(s), "
            f"as in {family}:{example}."
        )
    return Topology(name, chip, math.prod(int(dim) for dim in dims))

"""XLA's options for the train step on each kind of chip, each with its reason.

Figures are milliseconds a step of the 1.36 B recipe (8,192 tokens, two sequences a chip) by the
compiler's estimate; `docs/plan.md` tells how it is made.
"""

from __future__ import annotations

from jax.sharding import Mesh

from snowcoder_jax.planning.chips import CHIPS, FAMILY_OF_DEVICE_KIND

# How much of its on-chip memory a fusion may use, in KiB. XLA's 16 MiB keep the windows of matrix
# products small; with 64 they run at 95% of the peak instead of 75%: v5p 725 -> 602. It takes about
# twice the time to compile. Of v4 that is all it has.
_SCOPED_VMEM_KIB = {"v5e": "65536", "v5p": "65536", "v6e": "65536"}


def compiler_options(mesh: Mesh) -> dict[str, str]:
    """Options for `jax.jit(..., compiler_options=)` of a step on the devices of `mesh`.

    Empty on CPUs and GPUs, and on TPUs not known here.
    """
    family = FAMILY_OF_DEVICE_KIND.get(mesh.devices.flat[0].device_kind)
    if family is None or CHIPS[family].kind != "tpu":
        return {}
    # On 8 and 16 chips XLA would turn the gathers of weights into ring loops that write the whole
    # accumulator at every turn, a quarter to a half of the step. Gathers of more than this many
    # MiB would still become loops; there are none.
    options = {"xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000"}
    if family in _SCOPED_VMEM_KIB:
        options["xla_tpu_scoped_vmem_limit_kib"] = _SCOPED_VMEM_KIB[family]
    return options

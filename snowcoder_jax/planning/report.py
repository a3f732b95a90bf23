"""A plan as text and as JSON."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from snowcoder_jax.planning import analytic
from snowcoder_jax.planning.plan import Plan
from snowcoder_jax.planning.search import Tried

_GB = 1e9


def as_json(plan: Plan, price_per_chip_hour: float | None) -> dict[str, Any]:
    """One JSON object; bytes are of one chip, null where the phase does not fit.

    `estimated_step_seconds` counts the attention kernels at full matrix rate, and not the
    collectives that stop the chip; `cautious_step_seconds` counts both at stated rates.
    """
    best = plan.tried[0] if plan.tried else None
    memory = plan.best.memory
    facts: dict[str, Any] = {
        "recipe": plan.run.name,
        "phase": plan.phase.name,
        "topology": plan.topology.name,
        "num_chips": plan.topology.num_chips,
        "num_hosts": plan.topology.num_hosts,
        "compiled": best is not None,
        "mesh": plan.mesh,
        "layout": _layout(plan.best.layout),
        "fits": plan.fits,
        "peak_bytes": plan.peak_bytes,
        "hbm_bytes": plan.topology.chip.hbm_bytes,
        "missing_bytes": max(0, plan.peak_bytes - plan.topology.chip.hbm_bytes),
        "memory_by_arithmetic": dataclasses.asdict(memory),
        "num_parameters": plan.num_parameters,
        "flop_per_step": plan.flop_per_step,
        "compile_seconds": best.step.seconds if best else None,
        "estimated_step_seconds": plan.step_seconds if plan.fits else None,
        "cautious_step_seconds": plan.cautious_step_seconds if plan.fits else None,
        "estimated_mfu_causal": plan.mfu_causal if plan.fits else None,
        "tokens_per_second": plan.tokens_per_second if plan.fits else None,
        "chip_hours": None,
        "cost": None,
        "phases": [],
        "tried": [_tried(tried) for tried in plan.tried],
    }
    if best is not None and best.cost is not None:
        facts["argument_bytes"] = best.step.argument_bytes
        facts["temporary_bytes"] = best.step.temporary_bytes
        facts["matmul_flop"] = best.cost.matmul_flop
        facts["matmul_check"] = matmul_check(plan, best)
        facts["attention_kernel_flop"] = best.kernel_flop
        facts["collectives"] = {
            kind: dataclasses.asdict(collective)
            for kind, collective in sorted(best.cost.collectives.items())
        }
    if plan.fits:
        costs = plan.phase_costs()
        facts["phases"] = [dataclasses.asdict(cost) for cost in costs]
        facts["chip_hours"] = sum(cost.chip_hours for cost in costs)
        if price_per_chip_hour is not None:
            facts["cost"] = facts["chip_hours"] * price_per_chip_hour
    return facts


def matmul_check(plan: Plan, tried: Tried) -> float:
    """Matrix products of the compiled step over the model's own: 1.0 where not one is lost,
    doubled or shared out unevenly. Where blocks are made again it is less, for the compiler leaves
    out of that what the backward pass does not need."""
    assert tried.cost is not None
    model, vocab_size = plan.run.model, plan.run.tokenizer.vocab_size
    remat = tried.candidate.layout.remat
    want = analytic.matmul_flop(model, vocab_size, plan.phase.tokens_per_step, remat)
    return tried.cost.matmul_flop * plan.topology.num_chips / want


def _layout(layout: analytic.Layout) -> dict[str, Any]:
    return dataclasses.asdict(layout)


def _tried(tried: Tried) -> dict[str, Any]:
    return {
        "layout": _layout(tried.candidate.layout),
        "fits": tried.step.fits,
        "peak_bytes": tried.step.peak_bytes,
        "peak_bytes_by_arithmetic": tried.candidate.memory.total,
        "compile_seconds": tried.step.seconds,
        "estimated_step_seconds": tried.seconds if math.isfinite(tried.seconds) else None,
    }


def as_text(plan: Plan, price_per_chip_hour: float | None) -> str:
    """Some lines for a person."""
    chip, topology = plan.topology.chip, plan.topology
    lines = [
        f"{plan.run.name}, phase {plan.phase.name}: {plan.num_parameters / 1e9:.2f} B parameters, "
        f"{plan.phase.batch_size} x {plan.phase.sequence_length} tokens a step",
        f"{topology.name}: {topology.num_chips} chips on {topology.num_hosts} host(s), "
        f"{chip.hbm_bytes / _GB:.1f} GB and {chip.peak_flop_per_second / 1e12:.0f} TFLOP/s each; "
        + ", ".join(f"{axis} {size}" for axis, size in plan.mesh.items()),
        f"layout: {plan.best.layout}",
    ]
    if not plan.tried:
        lines.append("by arithmetic alone: nothing was compiled for this chip")
    lines += _memory_lines(plan)
    if not plan.fits:
        return "\n".join(lines)
    lines.append(
        f"step: {plan.step_seconds * 1e3:,.0f} ms, {plan.tokens_per_second:,.0f} tokens/s, "
        f"MFU {plan.mfu_causal:.1%} (causal attention counted)"
    )
    if plan.tried:
        lines += _compiled_lines(plan)
    lines.append("")
    lines.append(f"{'phase':<12}{'steps':>10}{'tokens':>10}{'days':>9}{'chip-hours':>12}")
    costs = plan.phase_costs()
    for cost in costs:
        note = "  (scaled from the planned shape)" if cost.is_scaled else ""
        lines.append(
            f"{cost.name:<12}{cost.num_steps:>10,}{cost.tokens / 1e9:>9.1f}B"
            f"{cost.days:>9.2f}{cost.chip_hours:>12,.0f}{note}"
        )
    chip_hours = sum(cost.chip_hours for cost in costs)
    days = sum(cost.days for cost in costs)
    lines.append(f"{'all':<32}{days:>9.2f}{chip_hours:>12,.0f}")
    if price_per_chip_hour is not None:
        lines.append(
            f"cost at {price_per_chip_hour:g} a chip-hour: {chip_hours * price_per_chip_hour:,.0f}"
        )
    return "\n".join(lines)


def _memory_lines(plan: Plan) -> list[str]:
    hbm = plan.topology.chip.hbm_bytes
    if plan.fits:
        said = f"fits: {plan.peak_bytes / _GB:.1f} of {hbm / _GB:.1f} GB a chip"
    else:
        said = (
            f"does not fit: {plan.peak_bytes / _GB:.1f} GB a chip is "
            f"{(plan.peak_bytes - hbm) / _GB:.1f} GB more than its {hbm / _GB:.1f} GB. Take more "
            "chips, or a chip with more memory."
        )
    if plan.tried and plan.fits:
        step = plan.tried[0].step
        said += (
            f" ({step.argument_bytes / _GB:.1f} parameters, moments and batch, "
            f"{step.temporary_bytes / _GB:.1f} temporaries)"
        )
    parts = ", ".join(
        f"{name.replace('_', ' ')} {size / _GB:.1f}"
        for name, size in dataclasses.asdict(plan.best.memory).items()
    )
    return [said, f"  by arithmetic, GB: {parts}"]


def _compiled_lines(plan: Plan) -> list[str]:
    best = plan.tried[0]
    assert best.cost is not None
    lines = [
        f"  with attention at {analytic.ATTENTION_EFFICIENCY['tpu']:.0%} of the matrix rate and "
        f"waiting for collectives: {best.cautious_seconds * 1e3:,.0f} ms",
        f"  compiled in {best.step.seconds:.0f} s; collectives of one chip and step:",
    ]
    ratio = matmul_check(plan, best)
    if ratio != 1 and best.candidate.layout.remat in analytic.NOTHING_AGAIN:
        lines.insert(
            0,
            f"  WARNING: a chip's matrix products are {ratio:.6g} times the model's, and should be "
            "exactly as many: the step computes something twice or not at all, or the plan counts "
            "it wrongly. Do not rely on its times.",
        )
    for kind, collective in sorted(best.cost.collectives.items()):
        lines.append(
            f"    {kind}: {collective.num:,} of {collective.num_bytes / _GB:.2f} GB in all, "
            f"{collective.synchronous_bytes / _GB:.2f} GB while the chip waits"
        )
    for tried in plan.tried[1:]:
        what = f"{tried.seconds * 1e3:,.0f} ms" if tried.step.fits else "does not fit"
        lines.append(
            f"  also compiled: {tried.candidate.layout}: {what}, "
            f"{tried.step.peak_bytes / _GB:.1f} GB"
        )
    return lines

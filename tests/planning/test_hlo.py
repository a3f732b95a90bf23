"""Costs read from HLO text: loops, branches, calls, matrix products, collectives."""

from __future__ import annotations

import pytest

from snowcoder_jax.planning import hlo
from snowcoder_jax.planning.hlo_scalars import UnknownScalarError
from snowcoder_jax.planning.hlo_text import num_bytes, parse

FUSED = """
%fused (p: bf16[8,16], q: bf16[16,4]) -> bf16[8,4] {
  %p = bf16[8,16]{1,0} parameter(0)
  %q = bf16[16,4]{1,0} parameter(1)
  ROOT %dot = bf16[8,4]{1,0} dot(%p, %q), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""
FUSION = (
    "%name = bf16[8,4]{1,0:T(8,128)(2,1)} fusion(%a, %b), kind=kOutput, calls=%fused, "
    'metadata={op_name="jit(step)/product"}, '
    'backend_config={"window_config":{"estimated_cycles":"100"}}'
)


def looped(start: int, bound: int, step: int, direction: str = "LT", inner: str = "") -> str:
    """A module whose loop runs one fusion (and `inner`) at each turn."""
    fusion = FUSION.replace("%name", "%f")
    return f"""HloModule m, is_scheduled=true
{FUSED}
%body (t: (s32[], s32[], bf16[8,16], bf16[16,4])) -> (s32[], s32[], bf16[8,16], bf16[16,4]) {{
  %t = (s32[]{{:T(128)}}, s32[], bf16[8,16]{{1,0}}, bf16[16,4]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %n = s32[] get-tuple-element(%t), index=1
  %a = bf16[8,16]{{1,0}} get-tuple-element(%t), index=2
  %b = bf16[16,4]{{1,0}} get-tuple-element(%t), index=3
  %step = s32[] constant({step})
  %next = s32[] add(%i, %step)
  {fusion}
  {inner}
  ROOT %out = (s32[], s32[], /*index=2*/bf16[8,16]{{1,0}}, bf16[16,4]) tuple(%next, %n, %a, %b)
}}

%compared (i: s32[], n: s32[]) -> pred[] {{
  %i = s32[] parameter(0)
  %n = s32[] parameter(1)
  ROOT %less = pred[] compare(%i, %n), direction={direction}
}}

%condition (t: (s32[], s32[], bf16[8,16], bf16[16,4])) -> pred[] {{
  %t = (s32[], s32[], bf16[8,16]{{1,0}}, bf16[16,4]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%t), index=0
  %n = s32[] get-tuple-element(%t), index=1
  ROOT %again = pred[] fusion(%i, %n), kind=kLoop, calls=%compared
}}

ENTRY %main (a: bf16[8,16], b: bf16[16,4]) -> bf16[8,4] {{
  %a = bf16[8,16]{{1,0}} parameter(0)
  %b = bf16[16,4]{{1,0}} parameter(1)
  %start = s32[] constant({start})
  %bound = s32[] constant({bound})
  %init = (s32[], s32[], bf16[8,16]{{1,0}}, bf16[16,4]{{1,0}}) tuple(%start, %bound, %a, %b)
  %loop = (s32[], s32[], bf16[8,16], bf16[16,4]) while(%init), condition=%condition, body=%body
  {FUSION.replace("%name", "ROOT %last")}
}}
"""


@pytest.mark.parametrize(
    ("start", "bound", "step", "direction", "trips"),
    [
        (0, 24, 1, "LT", 24),
        (0, 8, 2, "LT", 4),
        (0, 7, 2, "LT", 4),
        (5, 0, -1, "GT", 5),
        (3, 3, 1, "LT", 0),
    ],
)
def test_a_loop_counts_as_often_as_its_scalars_let_it_turn(
    start: int, bound: int, step: int, direction: str, trips: int
) -> None:
    cost = hlo.module_cost(looped(start, bound, step, direction))
    assert cost.cycles == 100 * (trips + 1)
    assert cost.matmul_flop == 2 * 8 * 16 * 4 * (trips + 1)
    assert cost.cycles_by_source == {"jit(step)/product": 100 * (trips + 1)}


def test_a_loop_that_turns_as_often_as_data_say_is_refused() -> None:
    text = looped(0, 8, 1).replace("%bound = s32[] constant(8)", "%bound = s32[] parameter(2)")
    with pytest.raises(UnknownScalarError, match="parameter"):
        hlo.module_cost(text)


def test_collectives_are_counted_by_kind_and_apart_where_the_chip_waits() -> None:
    gathers = """%g = bf16[64,16]{1,0} all-gather(%a), dimensions={0}
  %s = (bf16[8,16]{1,0}, bf16[64,16]{1,0}) all-gather-start(%a), dimensions={0}
  %d = bf16[64,16]{1,0} all-gather-done(%s)
  %r = bf16[1,16]{1,0} reduce-scatter(%a), dimensions={0}, to_apply=%compared"""
    found = hlo.module_cost(looped(0, 3, 1, inner=gathers)).collectives
    assert found["all-gather"] == hlo.Collective(6, 6 * 64 * 16 * 2, 3 * 64 * 16 * 2)
    assert found["reduce-scatter"] == hlo.Collective(3, 3 * 8 * 16 * 2, 3 * 8 * 16 * 2)


def test_a_conditional_counts_by_its_dearest_branch_and_a_call_by_what_it_calls() -> None:
    def computation(name: str, cycles: int) -> str:
        return f"""%{name} (p{name}: f32[4]) -> f32[4] {{
  %p{name} = f32[4]{{0}} parameter(0)
  ROOT %c = f32[4]{{0}} copy(%p{name}), backend_config={{"estimated_cycles":"{cycles}"}}
}}
"""

    text = f"""HloModule m
{computation("cheap", 5)}
{computation("dear", 70)}
{computation("called", 1000)}
ENTRY %main (x: f32[4], p: pred[]) -> f32[4] {{
  %x = f32[4]{{0}} parameter(0)
  %p = pred[] parameter(1)
  %y = f32[4]{{0}} conditional(%p, %x, %x), true_computation=%dear, false_computation=%cheap
  ROOT %z = f32[4]{{0}} call(%y), to_apply=%called
}}
"""
    assert hlo.module_cost(text).cycles == 1070


def test_a_convolution_counts_only_what_falls_on_its_input() -> None:
    # [64, 8] by [8, 16, 4], as the TPU compiler writes it: the 16 heads are a padded window.
    window = "window={size=16 pad=15_15 rhs_reversal=1}, dim_labels=b0f_i0o->b0f"
    text = f"""HloModule m
ENTRY %main (x: bf16[64,1,8], w: bf16[8,16,4]) -> bf16[64,16,4] {{
  %x = bf16[64,1,8]{{2,1,0}} parameter(0)
  %w = bf16[8,16,4]{{2,1,0}} parameter(1)
  ROOT %c = bf16[64,16,4]{{2,1,0}} convolution(%x, %w), {window}
}}
"""
    assert hlo.module_cost(text).matmul_flop == 2 * 64 * 8 * 16 * 4


def test_kernels_are_counted_even_where_their_metadata_breaks_the_line() -> None:
    kernel = (
        '%k = bf16[8,16]{1,0} custom-call(%a), custom_call_target="tpu_custom_call", '
        'frontend_attributes={kernel_metadata={\n"block": "1"\n}}, '
        'metadata={op_name="jit(step)/splash_mha_fwd"}'
    )
    cost = hlo.module_cost(looped(0, 6, 2, inner=kernel))
    assert cost.kernels == {"jit(step)/splash_mha_fwd": 3}


def test_bytes_of_a_type_are_those_of_its_arrays() -> None:
    assert num_bytes("(f32[2,3]{1,0:T(8,128)}, bf16[4]{0}, s32[], pred[7])") == 24 + 8 + 4 + 7


def test_text_that_is_no_module_is_refused() -> None:
    with pytest.raises(AssertionError, match="ENTRY"):
        parse("hello")


def test_products_that_rotate_positions_are_apart_from_those_with_weights() -> None:
    dot = "lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    named = f'{dot}, metadata={{op_name="jit(step)/rotation/dot_general"}}'
    cost = hlo.module_cost(looped(0, 4, 1).replace(dot, named))
    assert (cost.matmul_flop, cost.rotation_flop) == (0, 5 * 2 * 8 * 16 * 4)


def test_a_collective_that_runs_beside_products_is_counted_once_and_is_not_waited_for() -> None:
    def fused(name: str, target: str) -> str:
        return f"""%{name} (p{name}: bf16[8,16]) -> bf16[64,16] {{
  %p{name} = bf16[8,16]{{1,0}} parameter(0)
  %g{name} = bf16[64,16]{{1,0}} all-gather(%p{name}), channel_id=7, dimensions={{0}}
  ROOT %c{name} = bf16[64,16]{{1,0}} custom-call(%g{name}), custom_call_target="{target}"
}}
"""

    names = {"begun": "AsyncCollectiveStart", "beside": "Other", "done": "AsyncCollectiveDone"}
    calls = "\n".join(
        f"  %f{name} = bf16[64,16]{{1,0}} fusion(%a), kind=kCustom, calls=%{name}" for name in names
    )
    text = looped(0, 3, 1, inner=calls).replace(
        "%fused (", "".join(fused(*item) for item in names.items()) + "%fused (", 1
    )
    gathered = hlo.module_cost(text).collectives["all-gather"]
    assert gathered == hlo.Collective(3, 3 * 64 * 16 * 2, 0)

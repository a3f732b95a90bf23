"""Plans: topologies, the order of layouts, what is compiled, what is told."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from snowcoder_jax.cli import main
from snowcoder_jax.errors import InputError
from snowcoder_jax.planning import analytic, hlo, plan, report, search, topology
from snowcoder_jax.planning.chips import CHIPS, parse_topology
from snowcoder_jax.planning.search import Candidate, Tried
from snowcoder_jax.planning.topology import CompiledStep
from snowcoder_jax.recipe import Mesh, Recipe, Remat, load_recipe

CONFIGS = Path(__file__).parent.parent.parent / "configs"


def recipe(size: str = "1b3", *overrides: str) -> Recipe:
    return load_recipe(str(CONFIGS / f"arctic_snowcoder_{size}.yaml"), overrides)


def ranked(run: Recipe, name: str) -> list[Candidate]:
    pod = parse_topology(name)
    sizes = plan.sizes(run.hardware.mesh, pod)
    return search.candidates(run, run.phases[0], pod, sizes)


def step(fits: bool, peak_bytes: int = 0) -> CompiledStep:
    return CompiledStep(fits, peak_bytes, 0, 0, "", 1.0)


def test_topologies_are_chips_in_a_shape() -> None:
    pod = parse_topology("v5p:4x4x4")
    assert (pod.num_chips, pod.num_hosts, pod.chip) == (64, 16, CHIPS["v5p"])
    assert parse_topology("v5e:16x16").num_chips == 256
    assert [parse_topology(f"H100:{n}").num_hosts for n in (1, 8, 12, 16)] == [1, 1, 2, 2]


@pytest.mark.parametrize(
    "name", ["v5p", "v5p:4x4", "v5e:4x4x4", "v5e:0x4", "H100:2x2", "h100:8", ""]
)
def test_a_topology_that_is_none_is_refused_with_an_example(name: str) -> None:
    with pytest.raises(InputError, match=r"--topology .* as in"):
        parse_topology(name)


def test_layouts_of_a_batch_hold_all_of_it() -> None:
    for candidate in ranked(recipe(), "v5p:4x4x4"):
        layout = candidate.layout
        assert layout.microbatches * layout.rows_per_chip * 64 == 512


def test_a_batch_smaller_than_the_slice_is_refused() -> None:
    with pytest.raises(InputError, match=r"batch_size.*context"):
        ranked(recipe("1b3", "phases.general.batch_size=128"), "v5e:16x16")


def test_saving_more_needs_more_memory_and_less_time() -> None:
    by_remat = {
        c.layout.remat: c for c in ranked(recipe(), "v5p:2x2x2") if c.layout.rows_per_chip == 2
    }
    saving = ["full", "attention", "minimal", "none"]
    memory = [by_remat[name].memory.total for name in saving]
    seconds = [by_remat[name].work.seconds for name in saving]
    assert memory == sorted(memory)
    assert seconds[:3] == sorted(seconds[:3], reverse=True)


def test_the_memory_of_the_state_is_twelve_bytes_a_parameter() -> None:
    memory = ranked(recipe(), "v5p:2x2x2")[0].memory
    assert memory.parameters + memory.moments == pytest.approx(12 * 1_364_297_728 / 8, abs=8)


def test_at_most_three_layouts_are_compiled_each_another_way_to_recompute() -> None:
    found = ranked(recipe(), "v5p:2x2x2")
    tried: list[Tried] = []
    while (candidate := search.to_compile(found, tried, CHIPS["v5p"].hbm_bytes)) is not None:
        tried.append(Tried(candidate, step(fits=True)))
    remats = [t.candidate.layout.remat for t in tried]
    assert 1 <= len(tried) <= search.MAX_COMPILED
    assert len(set(remats)) == len(remats)


def test_after_one_that_did_not_fit_a_smaller_one_is_tried() -> None:
    found = ranked(recipe(), "v5e:4x4")
    first = search.to_compile(found, [], CHIPS["v5e"].hbm_bytes)
    assert first is not None
    second = search.to_compile(found, [Tried(first, step(fits=False))], CHIPS["v5e"].hbm_bytes)
    assert second is not None
    assert second.memory.total < first.memory.total


def test_the_last_layout_compiled_is_the_smallest_where_the_others_did_not_fit() -> None:
    found = ranked(recipe(), "v5e:4x4")
    hbm_bytes = CHIPS["v5e"].hbm_bytes
    tried: list[Tried] = []
    while (candidate := search.to_compile(found, tried, hbm_bytes)) is not None:
        tried.append(Tried(candidate, step(fits=False)))
    least = min(c.memory.total for c in found)
    sizes = [t.candidate.memory.total for t in tried]
    assert sizes == sorted(set(sizes), reverse=True)
    assert (len(tried), sizes[-1]) == (search.MAX_COMPILED, least)
    # The smallest is not compiled twice.
    assert search.to_compile(found, [tried[0], tried[2]], hbm_bytes) is None


def test_where_nothing_fits_by_arithmetic_the_smallest_is_compiled_once() -> None:
    found = ranked(recipe("13b"), "v5e:2x2")
    first = search.to_compile(found, [], CHIPS["v5e"].hbm_bytes)
    assert first is not None
    assert first.memory.total == min(c.memory.total for c in found)
    assert search.to_compile(found, [Tried(first, step(fits=False))], 1) is None


def test_attention_kernels_count_the_causal_half_of_their_products() -> None:
    model = recipe().model
    sizes = {"replica": 1, "fsdp": 8, "context": 1, "tensor": 1}
    one_product = 2 * 2 * 8192 * 8192 / 2 * 2048
    fused = hlo.Cost(kernels={"splash_mha_fwd": 24, "splash_mha_dkv": 24})  # type: ignore[arg-type]
    assert search.kernel_flop(fused, model, 2, 8192, sizes) == 24 * 7 * one_product
    split = hlo.Cost(
        kernels={"splash_mha_fwd": 48, "splash_mha_dkv": 24, "splash_mha_dq": 24}  # type: ignore[arg-type]
    )
    assert search.kernel_flop(split, model, 2, 8192, sizes) == 24 * 11 * one_product
    with pytest.raises(ValueError, match="not known"):
        search.kernel_flop(hlo.Cost(kernels={"paged": 1}), model, 2, 8192, sizes)  # type: ignore[arg-type]


def test_mesh_sizes_take_what_is_left_or_are_refused() -> None:
    pod = parse_topology("v5e:4x4")
    assert plan.sizes(Mesh(tensor=2), pod)["fsdp"] == 8
    with pytest.raises(InputError, match="16 chips"):
        plan.sizes(Mesh(fsdp=8), pod)


def test_a_gpu_is_planned_by_arithmetic_with_phases_and_cost() -> None:
    made = plan.make_plan(recipe(), "continued", "H100:8", print)
    facts = json.loads(json.dumps(report.as_json(made, price_per_chip_hour=2.0)))
    assert (facts["compiled"], facts["compile_seconds"], facts["fits"]) == (False, None, True)
    assert [p["num_steps"] for p in facts["phases"]] == [119_209, 11_921, 1_192]
    assert facts["cost"] == pytest.approx(2.0 * facts["chip_hours"])
    seconds = sum(p["num_steps"] for p in facts["phases"]) * facts["estimated_step_seconds"]
    assert facts["chip_hours"] == pytest.approx(seconds / 3600 * 8)
    assert facts["tokens_per_second"] == pytest.approx(512 * 8192 / facts["estimated_step_seconds"])
    assert 0.2 < facts["estimated_mfu_causal"] < 0.7
    text = report.as_text(made, 2.0)
    assert "by arithmetic alone" in text
    assert "chip-hour" in text


@pytest.mark.parametrize(
    ("name", "mesh", "axis", "bytes_per_second"),
    [
        ("H100:8", Mesh(), "fsdp", 450e9),
        # All eight adapters of a host carry its part of one gather.
        ("H100:16", Mesh(), "fsdp", 400e9),
        ("B200:16", Mesh(), "fsdp", 400e9),
        # A gather has two GPUs of each host; with the tensor axis over the host, one.
        ("H100:64", Mesh(tensor=4), "fsdp", 100e9),
        ("H100:64", Mesh(tensor=8), "fsdp", 50e9),
        ("H100:64", Mesh(tensor=8), "tensor", 450e9),
        ("H100:64", Mesh(tensor=16), "tensor", 400e9),
        # Whole copies in each host: their gradients alone cross.
        ("H100:64", Mesh(replica=8), "fsdp", 450e9),
        ("H100:64", Mesh(replica=8), "replica", 50e9),
        # The links of a TPU slice join its hosts.
        ("v5p:4x4x4", Mesh(), "fsdp", 600e9),
    ],
)
def test_what_crosses_hosts_of_gpus_goes_over_their_network(
    name: str, mesh: Mesh, axis: str, bytes_per_second: float
) -> None:
    pod = parse_topology(name)
    found = analytic._bytes_per_second(axis, plan.sizes(mesh, pod), pod)
    assert found == bytes_per_second


def test_a_network_between_hosts_makes_the_step_longer() -> None:
    run, pod = recipe("7b", "hardware.mesh.tensor=8"), parse_topology("H100:64")
    joined = dataclasses.replace(
        pod, chip=dataclasses.replace(pod.chip, network_bytes_per_second=None)
    )
    sizes = plan.sizes(run.hardware.mesh, pod)
    layout = analytic.Layout("full", 8, 1)
    seconds = [
        analytic.work(run.model, 32_000, layout, sizes, 512, topology).seconds
        for topology in (joined, pod)
    ]
    assert seconds[1] > 2 * seconds[0]


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("tensor", r"hardware\.mesh\.tensor: 3 does not divide a dim of"),
        ("context", r"sequence_length: 8192 is not divided by hardware\.mesh\.context 3"),
    ],
)
@pytest.mark.parametrize("topology_name", ["H100:24", "v5p:2x2x6"])
def test_a_mesh_that_does_not_divide_the_model_is_refused(
    axis: str, message: str, topology_name: str
) -> None:
    with pytest.raises(InputError, match=message):
        plan.make_plan(recipe("1b3", f"hardware.mesh.{axis}=3"), None, topology_name, print)


@pytest.mark.parametrize("remat", ["none", "minimal", "attention", "full"])
def test_matrix_products_that_are_not_the_models_are_warned_of(remat: Remat) -> None:
    """Of the compiled step one product of one layer is missing, or none is."""
    made = plan.make_plan(recipe(), None, "H100:8", print)
    model, phase = made.run.model, made.phase
    # 24 layers of 4 projections of 2,048 to 2,048 and 3 of 2,048 to 5,632, and the output.
    block = 4 * 2048 * 2048 + 3 * 2048 * model.mlp_dim
    multiplied = model.num_layers * block + made.run.tokenizer.vocab_size * 2048
    is_again = remat in ("attention", "full")
    products = 6 * multiplied + (2 * model.num_layers * block if is_again else 0)
    per_chip = products * phase.tokens_per_step // 8
    layout = dataclasses.replace(made.best.layout, remat=remat)
    candidate = dataclasses.replace(made.best, layout=layout)

    def told(matmul_flop: int) -> tuple[float, str]:
        cost = hlo.Cost(matmul_flop=matmul_flop)
        tried = Tried(candidate, step(fits=True), cost, 0.0, 1.0, 1.0)
        with_it = dataclasses.replace(made, best=candidate, tried=(tried,))
        return report.as_json(with_it, None)["matmul_check"], report.as_text(with_it, None)

    ratio, text = told(per_chip)
    assert ratio == 1.0
    assert "WARNING" not in text
    ratio, text = told(per_chip - 2 * 2048 * 2048 * phase.tokens_per_step // 8)
    assert ratio == pytest.approx(1 - 2 * 2048 * 2048 / products, rel=1e-9)
    assert ("WARNING: a chip's matrix products are 0.99" in text) == (not is_again)


def test_control_arms_cost_too() -> None:
    run = load_recipe(str(CONFIGS / "local.yaml"))
    costs = plan.make_plan(run, None, "H100:1", print).phase_costs()
    by_name = {cost.name: cost for cost in costs}
    assert [*by_name] == [phase.name for phase in run.all_phases()]
    assert by_name["control"].chip_hours == by_name["continued"].chip_hours > 0


def test_a_base_model_that_is_not_named_yet_is_no_plan() -> None:
    run = load_recipe(str(CONFIGS / "continue_from_hf.yaml"))
    with pytest.raises(InputError, match=r"base_model: .*placeholder"):
        plan.make_plan(run, None, "H100:8", print)


def test_a_phase_of_another_shape_is_scaled_and_said_so() -> None:
    made = plan.make_plan(
        recipe("1b3", "phases.enhanced.sequence_length=4096"), "general", "H200:8", print
    )
    general, _, enhanced = made.phase_costs()
    assert (general.is_scaled, enhanced.is_scaled) == (False, True)
    # Shorter sequences attend less, so a token costs less.
    assert enhanced.chip_hours / enhanced.tokens < general.chip_hours / general.tokens


def test_a_model_too_large_for_the_chips_is_said_not_to_fit_and_by_how_much() -> None:
    made = plan.make_plan(recipe("13b", "phases.general.batch_size=1"), None, "H100:1", print)
    facts = report.as_json(made, None)
    assert facts["fits"] is False
    assert facts["missing_bytes"] == facts["peak_bytes"] - 80 * 10**9 > 70 * 10**9
    assert facts["estimated_step_seconds"] is None
    assert "does not fit" in report.as_text(made, None)


@pytest.mark.parametrize(
    "arguments", [("--topology", "v5p:8"), ("--topology", "H100:8", "--phase", "generl")]
)
def test_the_command_names_a_fault_and_exits_with_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["plan", str(CONFIGS / "arctic_snowcoder_1b3.yaml"), *arguments]) == 2
    assert "snowcoder: --" in capsys.readouterr().err


def test_the_command_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    config = str(CONFIGS / "arctic_snowcoder_7b.yaml")
    assert main(["plan", config, "--topology", "B200:8", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["num_parameters"] == 6_738_415_616


@pytest.mark.parametrize(
    ("message", "peak_bytes"),
    [
        (
            "Ran out of memory on HBM, the total memory required for HLO temporaries (71.50G) "
            "exceeds available HBM (15.75G).",
            71.5 * 2**30 + 1000,
        ),
        (
            "Ran out of memory in memory space hbm. Used 17.25G of 15.75G hbm. Exceeded hbm "
            "capacity by 1.50G.",
            17.25 * 2**30,
        ),
    ],
)
def test_what_is_missing_is_read_from_the_compilers_refusal(
    message: str, peak_bytes: float
) -> None:
    refused = topology._too_large(message, 1000, 1.0)
    assert refused is not None
    assert (refused.fits, refused.peak_bytes) == (False, peak_bytes)
    assert topology._too_large("Mosaic failed to compile", 1000, 1.0) is None

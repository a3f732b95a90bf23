"""The pictures: right points, small, deterministic, many on one page without a clash."""

from __future__ import annotations

import re

import numpy as np
import pytest

from snowcoder_jax.reports import plots, svg, training_plots


def curve(num_steps: int, name: str = "general", first: int = 0) -> training_plots.Curve:
    return training_plots.Curve(
        name=name,
        series=0,
        steps=list(range(first, first + num_steps)),
        losses=[5.0 - 3.0 * i / num_steps for i in range(num_steps)],
        learning_rates=[1e-3 * (1 - i / num_steps) for i in range(num_steps)],
    )


def test_nothing_to_draw() -> None:
    assert training_plots.training_curves([]) is None
    assert training_plots.training_curves([curve(0)]) is None
    assert plots.bits_per_byte([], [], control_name="", baseline_name="") is None
    row = plots.DotRow("C", {"a": None})
    assert plots.bits_per_byte([row], ["a"], control_name="", baseline_name="") is None
    assert plots.score_histograms([]) is None
    assert plots.score_histograms([plots.Histogram("C", [0, 1], [0])]) is None
    assert plots.score_histograms([plots.Histogram("C", [0, 1], [1, 2])]) is None


@pytest.mark.parametrize("num_steps", [1, 2, 239, 240, 241, 1000])
def test_buckets_keep_every_value_in_sight(num_steps: int) -> None:
    values = np.random.default_rng(0).normal(size=num_steps)
    middle, mean, low, high = training_plots.bucketed(values.tolist())
    assert len(mean) == min(num_steps, training_plots.MAX_CURVE_POINTS)
    assert low.min() == values.min()
    assert high.max() == values.max()
    assert np.all(np.diff(middle) > 0)
    if num_steps <= training_plots.MAX_CURVE_POINTS:
        np.testing.assert_array_equal(mean, values)


def test_a_spike_of_one_step_is_still_seen() -> None:
    calm = curve(5_000)
    losses = list(calm.losses)
    losses[3_333] = 50.0
    spiky = training_plots.Curve("general", 0, calm.steps, losses, calm.learning_rates)
    assert training_plots.training_curves([calm]) != training_plots.training_curves([spiky])
    _, _, _, high = training_plots.bucketed(losses)
    assert high.max() == 50.0


def test_long_runs_stay_small() -> None:
    phases = [curve(119_209), curve(11_921, "continued", 119_209), curve(2, "short", 131_130)]
    picture = training_plots.training_curves(phases)
    assert picture is not None
    assert len(picture) < 150_000
    for name in ("general", "continued", "short"):
        assert f">{name}<" in picture


def test_one_step_without_learning_rate() -> None:
    single = training_plots.Curve("only", 0, [0], [4.2], [0.0])
    assert training_plots.training_curves([single]) is not None


def test_pictures_share_a_page() -> None:
    row = plots.DotRow("Python", {"a": 2.0, "b": 1.5}, baseline=2.2, control=1.7)
    bits = plots.bits_per_byte([row], ["a", "b"], control_name="c", baseline_name="5-gram")
    histogram = plots.Histogram("Python", [0.0, 0.5, 1.0], [3, 4], {"best": 0.7})
    page = "".join(
        str(p)
        for p in (
            training_plots.training_curves([curve(30)]),
            bits,
            plots.score_histograms([histogram]),
        )
    )
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 10
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(re.findall(r"url\(#([^)]+)\)", page)) <= set(ids)
    assert "http" not in page
    assert "<?xml" not in page
    assert "<metadata" not in page


def test_colours_come_from_the_page() -> None:
    picture = training_plots.training_curves([curve(30)])
    assert picture is not None
    assert "var(--series-0)" in picture
    assert "var(--muted)" in picture
    # A colour fixed in the picture would not follow dark mode.
    assert re.findall(r"#[0-9a-f]{6}\b", picture) == []
    assert "<text" in picture


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    first = training_plots.training_curves([curve(30)])
    assert dict(matplotlib.rcParams) == before
    assert training_plots.training_curves([curve(30)]) == first


def test_many_phases_and_languages() -> None:
    names = [f"phase number {i} with a long name" for i in range(svg.NUM_SERIES + 1)]
    curves = [curve(50, name, 50 * i) for i, name in enumerate(names)]
    assert training_plots.training_curves(curves) is not None
    rows = [plots.DotRow(f"language {i}", dict.fromkeys(names, 1.0 + i)) for i in range(20)]
    assert plots.bits_per_byte(rows, names, control_name="", baseline_name="n") is not None

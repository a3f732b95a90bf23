"""What the page tells of a phase's time and reading; and that old reports still make a page."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

from snowcoder_jax.reports import training_plots, training_sections
from snowcoder_jax.reports.markup import join

MakeReport = Callable[[], dict[str, Any]]


def section(report: dict[str, Any]) -> str:
    """The part of the page about training."""
    return str(join(training_sections.training(report)))


def plain(page: str) -> str:
    """The words of a page, tags gone."""
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page)))


def test_goodput_is_the_share_of_steps_that_last(make_report: MakeReport) -> None:
    report = make_report()
    report["phases"]["general"]["account"]["seconds"] = {
        "step": 60.0,
        "compile": 5.0,
        "data": 1.0,
        "checkpoint": 2.0,
        "start_up": 3.0,
        "restart": 4.0,
    }
    report["seconds"]["evaluate general"] = 25.0
    words = plain(section(report))
    assert "general 60% 1 min 5.0 s 1.0 s 2.0 s 25 s 4.0 s 3.0 s 1 min 40 s" in words


def test_an_evaluation_that_did_not_run_is_not_zero(make_report: MakeReport) -> None:
    report = make_report()
    assert "evaluate continued" not in report["seconds"]
    row = plain(section(report)).split("continued 84%")[1]
    assert row.index("not measured") < row.index("in all" if "in all" in row else "enhanced")


def test_languages_and_sources_are_summed_and_the_tail_is_named(make_report: MakeReport) -> None:
    report = make_report()
    for phase in (*report["phases"].values(), report["control"]):
        phase["seen"] = []
    report["phases"]["general"]["seen"] = [
        {
            "selection": "raw",
            "source": f"s{i:02d}",
            "language": "all",
            "num_sequences": 5,
            "tokens_by_language": {"Python": 300, "C<b>": 100},
        }
        for i in range(14)
    ]
    page = section(report)
    words = plain(page)
    assert "Python 4,200 75%" in words
    assert "C<b> 1,400 25%" in words
    assert "<b>" not in page.split("What was read")[1].split("</table>")[0]
    assert "s11 400 7.1%" in words
    assert "2 others 800 14%" in words
    assert "s12 " not in words


def test_both_utilizations_and_the_machines_are_told(make_report: MakeReport) -> None:
    words = plain(section(make_report()))
    assert "MFU, causal attention 56%" in words
    assert "MFU, full attention 69%" in words
    assert "peak not known" in words
    assert "8 x TPU v5, mesh fsdp 8, then 16 x TPU v5, 2 processes, mesh fsdp 16" in words


def test_a_report_of_an_earlier_version_still_makes_a_page(make_report: MakeReport) -> None:
    report = make_report()
    for phase in (*report["phases"].values(), report["control"]):
        for name in ("mfu_causal", "mfu_full", "data_wait_share", "account", "seen"):
            del phase[name]
    for point in report["curve"]:
        del point["grad_norm"], point["num_skipped"]
    page = section(report)
    assert "Where the time went" not in page
    assert "What was read" not in page
    assert "gradient norm</text>" not in page
    assert "skipped update</text>" not in page


def test_skipped_updates_are_marked_where_the_count_rises(make_report: MakeReport) -> None:
    report = make_report()
    assert "skipped update</text>" in section(report)
    for point in report["curve"]:
        point["num_skipped"] = 0
    assert "skipped update</text>" not in section(report)


def test_gradient_norms_of_any_size_are_drawn() -> None:
    steps = list(range(400))
    for norms in ([0.0] * 400, [1e-9 * 1.05**i for i in steps], [1.0] * 399 + [1e9]):
        curve = training_plots.Curve(
            "general", 0, steps, [3.0] * 400, [1e-3] * 400, grad_steps=steps, grad_norms=norms
        )
        picture = training_plots.training_curves([curve])
        assert picture is not None
        assert ">gradient norm<" in picture


def test_bars_without_time_are_not_drawn() -> None:
    kinds = ["steps", "saving"]
    assert training_plots.time_bars([], kinds) is None
    assert training_plots.time_bars([training_plots.TimeBar("a", {"steps": 0.0})], kinds) is None
    picture = training_plots.time_bars([training_plots.TimeBar("a", {"steps": 1.0})], kinds)
    assert picture is not None
    assert ">steps<" in picture
    assert ">saving<" not in picture

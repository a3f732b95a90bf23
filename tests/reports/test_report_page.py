"""The page of a run: whole whatever is missing, safe whatever the files hold."""

from __future__ import annotations

import copy
import json
import random
import re
import stat
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snowcoder_jax.errors import InputError
from snowcoder_jax.reports import markup, page, story

MakeReport = Callable[[], dict[str, Any]]

HOSTILE = "</script><script>alert(1)</script>'\"><img src=x onerror=alert(2)>\x00\ud800\u202e & ]]>"
MINUS = "\N{MINUS SIGN}"
_VOID = {"meta", "br", "col", "hr"}


class _Nesting(HTMLParser):
    """Checks that every tag is closed in order; gathers ids, links, tags and text."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open_tags: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.urls: list[str] = []
        self.tags: set[str] = set()
        self.handlers: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href", "action", "srcset", "data"):
                self.urls.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            self.references += re.findall(r"url\(#([^)]+)\)", value or "")
        if tag not in _VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags[-1:] == [tag], self.open_tags[-3:]
        self.open_tags.pop()

    def handle_data(self, data: str) -> None:
        if self.open_tags and self.open_tags[-1] != "style":
            self.text.append(data)


def parse(text: str) -> _Nesting:
    """The page, its soundness checked: nesting, unique ids, no dangling or outside links."""
    text.encode("utf-8")
    assert "\x00" not in text
    parser = _Nesting()
    parser.feed(text)
    parser.close()
    assert parser.open_tags == []
    assert len(parser.ids) == len(set(parser.ids))
    assert all(u.startswith("#") and u[1:] in parser.ids for u in parser.urls), parser.urls
    assert set(parser.references) <= set(parser.ids)
    assert not parser.tags & {"script", "img", "iframe", "link", "object", "embed", "base"}
    assert parser.handlers == []
    assert "@import" not in text
    assert not re.search(r"url\(\s*['\"]?(?:https?:)?//", text)
    return parser


def words(parser: _Nesting) -> str:
    return " ".join("".join(parser.text).split())


def leaf_paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        if isinstance(item, (dict, list)) and item:
            yield from leaf_paths(item, (*path, key))
        yield (*path, key)


def put(value: Any, path: tuple[Any, ...], item: Any) -> None:
    for key in path[:-1]:
        value = value[key]
        if value is None:
            return
    value[path[-1]] = item


def test_says_in_words_what_happened(make_report: MakeReport) -> None:
    parser = parse(page.render(make_report()))
    text = words(parser)
    assert "A 2.1 M-parameter code model read 5.2 M tokens in three phases" in text
    assert "fell from 2.351 to 2.214 to 2.187" in text
    assert "a byte 5-gram trained on the same bytes reaches 2.362" in text
    assert "0.175 better than it" in text
    told = text.replace(MINUS, "-")
    assert "no difference told apart on held-out code (-0.012 [-0.031, +0.006])" in told
    assert "better on solutions of the problems (-0.048 [-0.071, -0.026])" in told
    assert "It solves 0 of 30 problems" in text
    assert "can be trusted" in text
    assert "under 20 kB" in text
    assert "not finished" not in text
    for anchor in ("training", "bits", "corpus", "annotator", "synthesis", "times", "stand-ins"):
        assert anchor in parser.ids


def test_words_follow_the_sign(make_report: MakeReport) -> None:
    report = make_report()
    report["phases"]["enhanced"]["heldout_bits_per_byte"]["all"] = 2.5
    report["control"]["difference"]["heldout"] = {"difference": 0.1, "low": 0.05, "high": 0.2}
    report["phases"]["enhanced"]["mutants"]["failed"] = 29
    text = words(parse(page.render(report)))
    assert "went from 2.351 to 2.214 to 2.500" in text
    assert "0.138 worse than it" in text
    assert "worse on held-out code (+0.100 [+0.050, +0.200])" in text
    assert "cannot be trusted" in text


def test_an_interval_that_touches_zero_tells_nothing_apart() -> None:
    def verdict(low: float | None, high: float | None) -> str:
        return story.verdict({"difference": 0.0, "low": low, "high": high})

    assert verdict(-0.2, -1e-9) == "better"
    assert verdict(-0.2, 0.0) == "no difference told apart"
    assert verdict(0.0, 0.2) == "no difference told apart"
    assert verdict(1e-9, 0.2) == "worse"
    assert verdict(None, 0.2) == "not measured"
    assert verdict(float("nan"), 0.2) == "not measured"


def test_faults_and_an_unfinished_run_stand_at_the_top(make_report: MakeReport) -> None:
    report = make_report()
    report["status"] = "partial"
    report["unfinished"] = ["train enhanced", "report"]
    report["phases"]["enhanced"] = dict.fromkeys(report["phases"]["enhanced"])
    report["curve"] = report["curve"][:100]
    report["faults"] = ["2 references failed: the harness is not sound"]
    text = words(parse(page.render(report)))
    opening = text[: text.index("A 2.1 M-parameter")]
    assert "This run is not finished" in opening
    assert "Still to come: train enhanced, report." in opening
    assert "tokens in two phases (general → continued)" in text
    assert "fell from 2.351 to 2.214 on repositories it has never seen;" in text
    assert "It solves 0 of 30 problems" in text
    assert "2 references failed" in opening


def test_every_leaf_null(make_report: MakeReport) -> None:
    report = make_report()
    for path in leaf_paths(make_report()):
        node = report
        for key in path[:-1]:
            node = node[key]
        if not isinstance(node[path[-1]], (dict, list)):
            node[path[-1]] = None
    text = words(parse(page.render(report)))
    assert text.count("not measured") > 30
    assert "None" not in text


@pytest.mark.parametrize("empty", [None, {}, []])
def test_every_part_missing(make_report: MakeReport, empty: Any) -> None:
    report = {key: copy.deepcopy(empty) for key in make_report()}
    assert "not measured" in words(parse(page.render(report)))
    assert "not measured" in words(parse(page.render({})))


@pytest.mark.parametrize("seed", range(8))
def test_anything_may_be_null(make_report: MakeReport, seed: int) -> None:
    report = make_report()
    report["curve"] = report["curve"][::40]
    paths = list(leaf_paths(report))
    for path in random.Random(seed).sample(paths, len(paths) // (3 + 4 * seed)):
        put(report, path, None)
    assert "None" not in words(parse(page.render(report)))


def test_no_synthesis_and_no_control(make_report: MakeReport) -> None:
    report = make_report()
    report["synthesis"], report["control"], report["curve"] = {}, {}, []
    text = words(parse(page.render(report)))
    assert "no synthetic data yet" in text
    assert "Does choosing the data help" not in text
    report["synthesis"] = {
        "requests": 0,
        "accepted": 0,
        "yield": 0.0,
        "reasons": [],
        "tokens": {"generated": 0, "kept": 0, "copied": 0},
        "samples": [],
        "mixture_note": "",
    }
    assert "0 of 0 synthetic documents" in words(parse(page.render(report)))


def test_hostile_text_in_every_string(make_report: MakeReport) -> None:
    def poison(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: poison(v) for k, v in value.items()}
        if isinstance(value, list):
            return [poison(v) for v in value]
        return f"{value}{HOSTILE}$\\frac{{$" if isinstance(value, str) else value

    report = make_report()
    curve = report.pop("curve")[::40]
    poisoned = poison(report)
    # Keys come from files too: languages, licences, reasons, names of phases.
    poisoned["corpus"]["languages"] = {HOSTILE: report["corpus"]["languages"]["C"]}
    poisoned["corpus"]["dropped"] = {HOSTILE: 3}
    poisoned["annotator"]["histogram"]["counts_by_language"] = {HOSTILE: [1] * 20}
    poisoned["phases"] = {f"{k}{HOSTILE}$_$": v for k, v in poisoned["phases"].items()}
    poisoned["curve"] = [{**p, "phase": f"{p['phase']}{HOSTILE}$_$"} for p in curve]
    text = page.render(poisoned)
    parser = parse(text)
    assert "<script" not in text
    assert "alert(2)>\x00" not in text
    assert "</script><script>alert(1)</script>" in words(parser)
    assert "⟨U+0000⟩" in text
    assert "⟨U+D800⟩" in text
    assert "⟨U+202E⟩" in text


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=())), st.sampled_from(["Python", "C++", "PHP", ""]))
def test_any_text_is_safe_as_code_and_as_attribute(text: str, language: str) -> None:
    from snowcoder_jax.reports.highlight import code_block

    parse(markup.tag("p", text, code_block(text, language), title=text))


def test_a_huge_line_does_not_become_a_huge_page() -> None:
    from snowcoder_jax.reports.highlight import code_block

    block = code_block("x = '" + "a" * 2_000_000 + "'\n" + "y = 1\n" * 10_000, "Python")
    assert len(block) < 20_000
    assert "…" in block


def test_one_still_file_the_same_every_time(make_report: MakeReport) -> None:
    text = page.render(make_report())
    assert "http://" not in text
    assert "https://" not in text
    assert "Content-Security-Policy" in text
    assert "default-src 'none'" in text
    assert page.render(make_report()) == text
    # Rounded for people, raw where the pointer rests.
    assert '<span title="94312456">94.3 MB</span>' in text
    assert '<span title="131.5">2 min 12 s</span>' in text


def test_written_json_comes_back_in_order(make_report: MakeReport, tmp_path: Path) -> None:
    report = make_report()
    report["seconds"]["ingest"] = np.float32(1.5)
    report["corpus"]["documents"] = np.int64(7)
    report["phases"]["general"]["final_loss"] = float("nan")
    page.write_report(report, str(tmp_path / "run"))
    text = (tmp_path / "run" / "report.json").read_text()
    back = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert list(back["phases"]) == ["general", "continued", "enhanced"]
    assert list(back["seconds"]) == list(report["seconds"])
    assert back["seconds"]["ingest"] == 1.5
    assert back["corpus"]["documents"] == 7
    assert back["phases"]["general"]["final_loss"] is None
    assert back["curve"] == report["curve"]
    html = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert html == page.render(back)
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["report.html", "report.json"]


def test_lone_surrogates_survive_the_json(make_report: MakeReport, tmp_path: Path) -> None:
    report = make_report()
    report["annotator"]["best"][0]["code"], report["curve"] = HOSTILE, []
    page.write_report(report, str(tmp_path))
    back = json.loads((tmp_path / "report.json").read_text())
    assert back["annotator"]["best"][0]["code"] == HOSTILE


def test_a_report_that_cannot_be_made_leaves_the_old_one(
    make_report: MakeReport, tmp_path: Path
) -> None:
    page.write_report({"name": "old"}, str(tmp_path))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    broken = make_report()
    broken["curve"], broken["corpus"]["ledger"] = [], {"x": object()}
    with pytest.raises(TypeError):
        page.write_report(broken, str(tmp_path))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_file_where_the_folder_should_be(make_report: MakeReport, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        page.write_report({"name": "new"}, str(tmp_path / "run"))
    assert stat.S_ISREG((tmp_path / "run").stat().st_mode)

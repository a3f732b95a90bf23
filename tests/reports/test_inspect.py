"""The inspect page of a run: right counts, samples of everything, no secret, nothing that runs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import hand_run
import pyarrow.parquet as pq
import pytest

from snowcoder_jax import cli
from snowcoder_jax.errors import EXIT_DONE, EXIT_INPUT, InputError
from snowcoder_jax.reports import inspect
from snowcoder_jax.reports.inspect_run import open_run

MakeRun = Callable[..., str]
SECRETS = ("jane.roe", "corp-mail", "q8Zt3LmP0xVb7Rk2Ws9Yd4Hg", "otto@", "match-corp")
ALL = (
    "rules",
    "duplicates",
    "contamination",
    "secrets",
    "policy",
    "tokens",
    "quality",
    "select corpus",
    "select best",
    "pack corpus 128",
)


class Page(HTMLParser):
    """Sections of a page: their text, the rows of their tables, and that all elements nest."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.html = Path(path).read_text()
        self.text: dict[str, str] = {}
        self.rows: dict[str, list[list[str]]] = {}
        self._section = ""
        self._open: list[str] = []
        self.feed(self.html)
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "br"):
            self._open.append(tag)
        if tag == "section":
            self._section = dict(attributes)["id"] or ""
        elif tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        elif tag in ("td", "th"):
            self.rows[self._section][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text[self._section] = self.text.get(self._section, "") + data
        if "tr" in self._open and self.rows[self._section][-1]:
            self.rows[self._section][-1][-1] += data

    def row(self, section: str, first: str) -> list[str]:
        """The cells after one that begins with `first`."""
        (found,) = [r[1:] for r in self.rows[section] if r[0].startswith(first)]
        return found


def page_of(run: str, num_samples: int = 3) -> Page:
    return Page(inspect.write_page(run, num_samples))


def stage_rows(run: str, step: str) -> Iterator[dict[str, object]]:
    for path in sorted(Path(open_run(run).folders[step]).rglob("*.parquet")):
        yield from pq.read_table(path).to_pylist()


def test_the_funnel_counts_what_the_stages_wrote(make_run: MakeRun) -> None:
    run = make_run()
    page = page_of(run)
    files = {row[0]: row[1] for row in page.rows["funnel"]}
    assert files["files listed"] == "25"
    assert files["documents"] == "16"
    policy = list(stage_rows(run, "policy"))
    left = len(policy)
    for stage in ("license", "rules", "duplicates", "contamination"):
        left -= sum(row["stage"] == stage for row in policy)
        assert files[f"after {stage}"] == str(left)
    splits = Counter(row["split"] for row in policy)
    assert files["train side"] == str(splits["train"]) == "7"
    assert files["held out, whole repositories"] == str(splits["heldout"]) == "1"
    assert files["selection corpus"] == "7"
    assert files["selection best"] == "2"
    packed = page.row("funnel", "packed corpus")
    assert (packed[0], packed[3]) == ("7", "500")
    assert "4 sequences of 128" in page.text["funnel"]
    assert "binary 1" in page.row("funnel", "documents")[-1]


def test_rules_are_counted_by_language_and_each_has_a_sample(make_run: MakeRun) -> None:
    run = make_run()
    page = page_of(run)
    failed = Counter(str(r["rule"]) for r in stage_rows(run, "rules") if r["verdict"] != "pass")
    assert len(failed) == 4
    for rule, n in failed.items():
        assert page.row("rules", rule)[0] == str(n)
        sample = page.html.split(f'id="rule-{rule}"')[1].split("<h3")[0]
        assert ">dropped</strong>" in sample
    header = page.rows["rules"][0]
    assert header[1:5] == ["dropped", "beyond it", "beyond it alone", "Python"]
    assert page.row("rules", "notebook")[header.index("Jupyter Notebook") - 1] == "1"
    # A kept file with a line of 957 of 1,000 characters.
    near = page.html.split('id="rule-max_line_characters"')[1].split("<h3")[0]
    assert "kept, close to it" in near
    assert "first/near.py" in near
    # The long line of a file is what is shown of it.
    assert "from line 45" in near


def test_signals_have_histograms_with_thresholds(make_run: MakeRun) -> None:
    page = page_of(make_run())
    panels = page.html.split('id="signals"')[1].split("</section>")[0].split("<details")[1:]
    by_name = {re.sub("<[^>]+>", "", p.split(">", 2)[2]).split(" few")[0][:20]: p for p in panels}
    lines = next(p for name, p in by_name.items() if name.startswith("max line"))
    # Python and Go have the rule, notebooks do not.
    assert lines.count('class="limit"') == 2
    assert lines.count("<figure") == 2
    assert ">1,000</text>" in lines
    assert 'class="out"' in lines
    letters = next(p for name, p in by_name.items() if name.startswith("letter share"))
    assert ">0.25</text>" in letters
    assert page.row("signals", "autogenerated")[0] == "1"


def test_no_secret_is_on_the_page_and_its_marker_is(make_run: MakeRun) -> None:
    page = page_of(make_run())
    for secret in SECRETS:
        assert secret not in page.html
    assert page.row("secrets", "email")[:2] == ["2", "2"]
    assert page.row("secrets", "key")[:2] == ["1", "1"]
    assert 'mail = "<EMAIL_1>"' in page.text["secrets"]
    assert "<mark>" in page.html.split('id="secrets"')[1].split("</section>")[0]


def test_names_of_repositories_and_files_are_redacted(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    address = "jane.roe@corp-mail.com"
    names = {name: f"{name}-{address}" for name in ("first", "second", "third")}
    hand_run.rename_repositories(tmp_path, names)
    page = page_of(run)
    assert page.row("ledger", "binary")[-1] == "<EMAIL_1>/data.py"
    for section in ("repositories", "duplicates"):
        assert "<EMAIL_1>" in page.text[section]
    assert "jane" not in page.html


def test_before_secrets_are_known_no_file_is_shown(make_run: MakeRun) -> None:
    page = page_of(make_run(without=["secrets"]))
    assert "<pre" not in page.html
    assert "import os" not in page.html
    assert "Secrets have not been looked for yet" in page.text["files"]
    for secret in SECRETS:
        assert secret not in page.html


def test_files_cannot_put_elements_on_the_page(make_run: MakeRun) -> None:
    page = page_of(make_run(), num_samples=9)
    assert "<script" not in page.html
    assert "evil<b>" not in page.html
    assert "evil<b>.py" in page.text["kept"]
    assert "<script>alert(1)</script>" in page.text["kept"]
    assert "\x1b" not in page.html
    assert "http-equiv" in page.html
    assert "default-src 'none'" in page.html


def test_duplicates_stand_side_by_side_with_what_differs_marked(make_run: MakeRun) -> None:
    page = page_of(make_run())
    text = page.text["duplicates"]
    assert "1 exact duplicate, 1 near duplicate, in 1 cluster" in text
    assert page.row("duplicates", "3")[:2] == ["1", "3"]
    assert page.row("duplicates", "first/lib/words.py") == ["3"]
    pair = page.html.split(">Near-duplicates<")[1].split("<h3")[0]
    assert "second/lib/words.py" in pair
    assert pair.count("<figure") == 2
    # 60 functions of 6 words, and a few words more.
    similarity = re.search(r"Similarity of these two ([\d.]+)", text)
    assert similarity is not None and 0.95 < float(similarity.group(1)) < 1
    assert "highest to any of its cluster 0.900" in text
    marked = "".join(re.findall("<mark>(.*?)</mark>", pair))
    assert "last" in marked
    assert "function_59" not in marked


def test_a_match_is_marked_and_its_secret_redacted(make_run: MakeRun) -> None:
    page = page_of(make_run())
    assert page.row("contamination", "HumanEval") == ["ngram", "1", "1"]
    shown = page.html.split('id="contamination"')[1].split("</section>")[0]
    marked = "".join(re.sub("<[^>]+>", "", m) for m in re.findall("<mark>(.*?)</mark>", shown))
    assert "intersperse(numbers, delimiter)" in marked
    assert "EMAIL_1" in marked
    assert "import" not in marked


def test_repositories_licences_and_ledger(make_run: MakeRun) -> None:
    page = page_of(make_run())
    python = page.row("repositories", "Python")
    assert python[:2] == ["7", "3"]
    assert 1 < float(python[2]) < 3
    assert page.row("repositories", "Go")[:3] == ["1", "1", "1.0"]
    # One copy of each kind among 14 Python files.
    assert python[-2:] == ["7.1%", "7.1%"]
    assert page.row("licenses", "GPL-3.0-only")[-2:] == ["0", "refused"]
    assert page.row("ledger", "binary")[-1] == "third/data.py"
    assert page.row("ledger", "language")[0] == "7"


def test_the_same_run_gives_the_same_bytes(make_run: MakeRun) -> None:
    run = make_run()
    first = Path(inspect.write_page(run, 2)).read_bytes()
    assert first == Path(inspect.write_page(run, 2)).read_bytes()


def test_what_was_not_run_is_named(make_run: MakeRun) -> None:
    page = page_of(make_run(without=ALL))
    for section in ("rules", "signals", "files", "duplicates", "contamination", "secrets", "kept"):
        assert "Not there yet" in page.text[section], section
    assert "snowcoder annotate" in page.text["scores"]
    assert "Waiting: corpus, best" in page.text["selections"]
    assert "Not everything was run yet" in page.html
    assert page.row("funnel", "documents")[0] == "16"
    assert page.row("repositories", "Python")[:2] == ["14", "5"]


@pytest.mark.parametrize("step", ALL)
def test_any_one_step_may_be_missing(make_run: MakeRun, step: str) -> None:
    page = page_of(make_run(without=[step]))
    assert f"Still to come: {step}." in page.html


def test_the_command_and_its_exit_codes(
    make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    assert cli.main(["inspect", run, "--samples", "1"]) == EXIT_DONE
    path = capsys.readouterr().out.strip().removeprefix("corpus: ")
    assert Path(path).name == "index.html"
    few = Page(path).html.count("<details")
    assert 0 < few < page_of(run).html.count("<details")
    assert cli.main(["inspect", str(tmp_path / "none")]) == EXIT_INPUT
    assert "is no run" in capsys.readouterr().err


def test_a_run_without_documents_is_the_users_fault(make_run: MakeRun) -> None:
    run = make_run()
    folder = Path(open_run(run).folders["ingest"])
    (folder / "stage.json").unlink()
    with pytest.raises(InputError, match="snowcoder prepare"):
        inspect.write_page(run, 3)

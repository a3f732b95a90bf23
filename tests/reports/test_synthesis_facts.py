"""What became of every request: counts of all stages, samples of each end, no secret shown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import hand_run
import pyarrow.parquet as pq
import synthetic_run
from synthetic_run import HEAD, HOSTILE, SECRET, SEED_ID, add_synthesis

from snowcoder_jax.reports import inspect, synthesis_facts, synthesis_sections
from snowcoder_jax.reports.inspect_run import open_run
from snowcoder_jax.reports.synthesis_facts import Facts

MakeRun = Callable[..., str]


def gathered(run: str, num_samples: int = 3) -> Facts:
    facts = synthesis_facts.gather(open_run(run), num_samples)
    assert facts is not None
    return facts


def samples_of(facts: Facts, stage: str | None, reason: str | None) -> list[Facts]:
    return [s for s in facts["samples"] if (s["stage"], s["reason"]) == (stage, reason)]


def test_every_end_is_counted_as_the_files_say(make_run: MakeRun) -> None:
    run = add_synthesis(make_run())
    facts = gathered(run)
    counted = {(r["stage"], r["reason"]): r["documents"] for r in facts["reasons"]}
    assert counted == synthetic_run.reasons_on_disk(run)
    assert counted["answers", "unparsable"] == 3
    assert set(counted) >= {
        ("rules", "min_words"),
        ("duplicates", "near_duplicate"),
        ("contamination", "contaminated"),
        ("answers", "error"),
    }
    assert facts["kept"] == 3
    assert facts["kept"] + sum(counted.values()) == facts["requests"]
    assert facts["yield"] == 3 / 12
    of_unparsable = next(r for r in facts["reasons"] if r["reason"] == "unparsable")
    assert of_unparsable["languages"] == {"Python": 2, "Go": 1}
    assert facts["secrets"] == {"email": 1}


def test_each_end_has_a_sample(make_run: MakeRun) -> None:
    facts = gathered(add_synthesis(make_run()))
    for row in facts["reasons"]:
        found = samples_of(facts, row["stage"], row["reason"])
        assert len(found) == min(3, row["documents"])
        assert not any(s["accepted"] for s in found)
    accepted = samples_of(facts, None, None)
    assert sorted(s["language"] for s in accepted) == ["Go", "Python", "Python"]
    assert all(s["seed_path"] == "first: lib/words.py" for s in accepted)


def test_samples_are_bounded_and_the_same_every_time(make_run: MakeRun) -> None:
    run = add_synthesis(make_run())
    facts = gathered(run, 1)
    assert len(samples_of(facts, "answers", "unparsable")) == 1
    assert json.dumps(facts) == json.dumps(gathered(run, 1))


def test_a_secret_is_shown_as_its_marker_only(make_run: MakeRun) -> None:
    facts = gathered(add_synthesis(make_run()))
    assert SECRET not in json.dumps(facts)
    # Of a document by the spans of its stage, of a refused answer by a search of its own.
    (kept,) = samples_of(facts, "secrets", "email")
    assert "<EMAIL_1>" in kept["written"]
    assert any("<EMAIL_1>" in s["written"] for s in samples_of(facts, "answers", "unparsable"))


def test_a_given_head_is_parted_from_what_was_written(make_run: MakeRun) -> None:
    facts = gathered(add_synthesis(make_run()))
    (sample,) = [s for s in samples_of(facts, None, None) if s["given_is"] == "head"]
    assert sample["given"] == HEAD
    # The line that stands in the seed too is marked; the secret behind it is redacted.
    opening, closing = sample["marks"]
    marked = re.findall(f"{opening}([^{closing}]*){closing}", sample["written"])
    assert marked == ["def function_1(argument_1):", "    return 1"]
    assert sample["written"].endswith('mail = "<EMAIL_1>"\nlast = 1\n')


def test_of_a_seed_the_lines_are_shown_that_the_teacher_saw(make_run: MakeRun) -> None:
    facts = gathered(add_synthesis(make_run()))
    (sample,) = [s for s in samples_of(facts, None, None) if "heapq" in s["written"]]
    assert sample["given_is"] == "seed"
    assert sample["given"] == "def function_1(argument_1):\n    return 1"


def test_a_copy_stands_beside_what_it_copies(make_run: MakeRun) -> None:
    facts = gathered(add_synthesis(make_run()))
    (near,) = samples_of(facts, "duplicates", "near_duplicate")
    assert near["detail"] == "kept: first/lib/words.py"
    assert near["given"].startswith("def function_0(argument_0):")
    assert near["value"] == 0.9
    assert near["marks"][0] + "def function_0(argument_0):" in near["written"]
    (copy,) = samples_of(facts, "answers", "copy_of_seed")
    assert (copy["value"], copy["threshold"]) == (0.93, 0.7)
    assert copy["marks"]
    (match,) = samples_of(facts, "contamination", "contaminated")
    assert match["detail"] == "HumanEval HumanEval/5"
    opening, closing = match["marks"]
    assert f"{opening}def intersperse(numbers, delimiter):{closing}" in match["written"]


def test_names_of_seeds_and_words_of_dead_letters_are_shown_without_addresses(
    make_run: MakeRun,
) -> None:
    run = add_synthesis(make_run())
    documents = Path(open_run(run).folders["ingest"]) / "documents/code/part-00000.parquet"
    table = pq.read_table(documents)
    ids = table["id"].to_pylist()
    paths = table["path"].to_pylist()
    paths[ids.index(SEED_ID)] = f"to {SECRET}"
    pq.write_table(table.set_column(table.column_names.index("path"), "path", [paths]), documents)
    facts = gathered(run)
    assert SECRET not in json.dumps(facts)
    assert {s["seed_path"] for s in samples_of(facts, None, None)} == {"first: to <EMAIL_1>"}
    (near,) = samples_of(facts, "duplicates", "near_duplicate")
    assert near["detail"] == "kept: first/to <EMAIL_1>"
    told, hidden = facts["asked"]["dead_letters"]["samples"]
    assert told == {"key": "k9", "repo": "first", "path": "a.py", "error": "context: 9 > 8"}
    assert hidden["error"] == "refused: <EMAIL_1>"


def test_no_text_before_secrets_are_known(make_run: MakeRun) -> None:
    facts = gathered(add_synthesis(make_run(), without=("synthetic secrets",)))
    documents = [s for s in facts["samples"] if s["stage"] != "answers"]
    assert documents
    assert all(s["written"] is None for s in documents)
    assert SECRET not in json.dumps(facts)


def test_nothing_is_told_of_what_is_not_done(make_run: MakeRun) -> None:
    run = make_run()
    assert synthesis_facts.gather(open_run(run), 3) is None
    page = inspect.write_page(run, 3)
    with open(page) as file:
        assert "This recipe has no synthetic documents." in file.read()


def test_before_the_policy_all_accepted_count_as_kept(make_run: MakeRun) -> None:
    facts = gathered(add_synthesis(make_run(), without=("synthetic policy",)))
    assert facts["kept"] == 6
    assert {r["stage"] for r in facts["reasons"]} == {"answers"}


def test_the_inspect_page_shows_ends_cost_and_dead_letters(make_run: MakeRun) -> None:
    with open(inspect.write_page(add_synthesis(make_run()), 3)) as file:
        html = file.read()
    section = html.split('<section id="synthesis"')[1].split("</section>")[0]
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", section))
    assert "oss_instruct-1-abcdef" in text
    assert "$4.50" in text
    assert "$4.00" in text  # expected before
    assert "machine time, all workers 1 h " in text
    assert "Seeds that no request was made of: long lines 3." in text
    assert "languages that cannot be judged: Markdown 4." in text
    assert "Dead letters: context 1, refused 1" in text
    assert "context: 9 &gt; 8" in section
    assert "near duplicate" in text
    assert "Refused by contamination: contaminated" in text
    assert "2 refused answers were ended by max_new_tokens." in text
    assert SECRET not in html
    assert "<script" not in html
    assert "⟨U+0000⟩" in section


def test_a_line_is_marked_where_the_seed_has_it_too() -> None:
    text = "import os\nx = 1\n}\ndef shared(argument):\n    return argument + 1\n"
    seed = "  def shared(argument):\nx = 1\n}\n"
    marked, marks = synthesis_facts.mark_shared(text, seed)
    opening, closing = marks
    assert marked.replace(opening, "[").replace(closing, "]") == (
        "import os\nx = 1\n}\n[def shared(argument):]\n    return argument + 1\n"
    )
    assert synthesis_facts.mark_shared(text, "") == (text, "")
    # The marks are characters that the text does not have.
    strange = "".join(map(chr, range(0xE000, 0xE010))) + "\ndef shared(argument):\n"
    marked, marks = synthesis_facts.mark_shared(strange, seed)
    assert not set(marks) & set(strange)
    assert len(set(marks)) == 2


def test_hostile_texts_of_refused_answers_stay_text() -> None:
    sample = {"accepted": False, "stage": "answers", "reason": HOSTILE, "written": HOSTILE}
    html = "".join(map(str, synthesis_sections.samples([sample])))
    assert "<script" not in html
    assert hand_run.SECRETS[0] not in html

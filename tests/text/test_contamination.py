"""Copies of benchmark items are found, whatever their layout; clean code is not."""

from __future__ import annotations

import gzip
import json
import os
import random
import sysconfig
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from renaming import rename

from snowcoder_jax.text import benchmarks, contamination
from snowcoder_jax.text.benchmarks import Reference
from snowcoder_jax.text.contamination import ContaminationIndex

FIXTURES = Path(__file__).parents[1] / "fixtures" / "benchmarks"
IDIOMS = sorted((Path(__file__).parents[1] / "fixtures" / "idioms").iterdir())
REAL = Path(
    os.environ.get("SNOWCODER_BENCHMARKS", Path(__file__).parents[2].parent / "shared" / "data")
)
FOLDERS = ("humaneval", "humanevalplus", "mbpp", "mbppplus", "bigcodebench", "humaneval_x")
needs_benchmarks = pytest.mark.skipif(
    not all((REAL / folder).is_dir() for folder in FOLDERS),
    reason=f"no benchmark files at {REAL}: set SNOWCODER_BENCHMARKS",
)
STDLIB = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:100]


@pytest.fixture(scope="module")
def index() -> ContaminationIndex:
    return ContaminationIndex.from_benchmarks([str(FIXTURES)], 10)


@pytest.fixture(scope="module")
def real_index() -> ContaminationIndex:
    return ContaminationIndex.from_benchmarks([str(REAL / folder) for folder in FOLDERS], 10)


def of_one(text: str, ngram_words: int = 10) -> ContaminationIndex:
    return ContaminationIndex([Reference("b", "i", text)], ngram_words)


def records(path: str) -> Sequence[dict[str, str]]:
    data = Path(path).read_bytes()
    data = gzip.decompress(data) if path.endswith(".gz") else data
    loaded = json.loads(data) if path.endswith(".json") else map(json.loads, data.splitlines())
    return list(loaded)


def prompt_and_solution(record: dict[str, str]) -> tuple[str, str]:
    prompt = record.get("complete_prompt") or record.get("prompt") or record["text"]
    return prompt, record.get("canonical_solution") or record["code"]


ITEMS = [(path, r) for path in benchmarks.expand([str(FIXTURES)]) for r in records(path)]
NEIGHBOUR = "".join(f"def note_{i}(page):\n    return page.{i}\n\n" for i in "abcdefgh")


def test_every_format_has_fixtures() -> None:
    assert min(Counter(path for path, _ in ITEMS).values()) >= 3
    assert len({path for path, _ in ITEMS}) == 13


@pytest.mark.parametrize(
    ("path", "record"), ITEMS, ids=[f"{Path(p).stem} {r['task_id']}" for p, r in ITEMS]
)
def test_planted_copies_of_every_format(
    index: ContaminationIndex, path: str, record: dict[str, str]
) -> None:
    prompt, solution = prompt_and_solution(record)
    whole = prompt + "\n" + solution
    copies = {
        "copy": f"import os\n\n{whole}\n\nprint(1)\n",
        "re-indented": "class A:\n" + "".join(f"\t\t{x}\n" for x in whole.split("\n")),
        "comments": "".join(f"// {x}\n" for x in prompt.split("\n")) + "\nfn other() {}\n",
        "upper case": whole.upper(),
        "windows": whole.replace("\r", "").replace("\n", "\r\n"),
        "one line": " ".join(whole.split()),
        "punctuation": whole.replace("(", "{ ").replace(",", " ; ").replace(":", " -> "),
        "inside": NEIGHBOUR + whole + "\n\n" + NEIGHBOUR,
    }
    for name, text in copies.items():
        match = index.find(text)
        assert match is not None, name
        assert (match.benchmark, match.item, match.method) == (
            os.path.basename(path).split(".")[0],
            str(record["task_id"]),
            "exact",
        ), name
        assert match.text in text


def test_half_a_solution_is_found_by_its_n_grams(index: ContaminationIndex) -> None:
    record = next(r for _, r in ITEMS if r["task_id"] == "BigCodeBench/207")
    half = record["canonical_solution"].split("return")[0]
    prompt = record["complete_prompt"].split("Parameters")[0]
    for text in (f"def run(q):\n{half}\n    print(q)\n", prompt.replace("API", "web API", 1)):
        match = index.find(text)
        assert match is not None, text
        assert (match.item, match.method) == ("BigCodeBench/207", "ngram")
        assert match.text in text


def test_clean_files_and_idioms_are_not_flagged(index: ContaminationIndex) -> None:
    assert len(STDLIB) == 100
    for file in (*STDLIB, *IDIOMS):
        assert index.find(file.read_text(errors="replace"), "Python") is None, file


def test_short_references_match_as_whole_word_for_word() -> None:
    short = "def halve_perimeter(triangle):\n    return triangle.perimeter / 2"
    find = of_one(short).find
    match = find(f"x = 1\n{short}\n")
    assert match is not None
    assert (match.text, match.method) == (short, "exact")
    assert find("DEF Halve_Perimeter [triangle] { return triangle->perimeter, 2 }") is not None
    assert find(short.replace("/ 2", "/ 3")) is None
    assert find(short.replace("halve", "halves")) is None


@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("remember_everything_worth, knowing twice over", False),
        ("remember_everything_worth, knowing twice over again", True),
        ("count slow tides, marks where", False),
        ("counts slow tides, marks where", True),
    ],
)
def test_shorter_than_five_words_or_25_letters_is_an_idiom(text: str, is_found: bool) -> None:
    assert (of_one(text).find(text) is not None) == is_found


def test_of_common_words_alone_ten_are_needed() -> None:
    nine = "continue; // while float: return false; else default string; function"
    assert of_one(nine).find(nine) is None
    ten = nine + "(object)"
    assert of_one(ten).find(f"{{ {ten} }}") is not None


def test_match_is_the_documents_own_text() -> None:
    find = of_one("how many sensor readings climb far above the given ceiling twice running?").find
    text = "é\n# HOW many   sensor readings climb far above the given ceiling. ü"
    match = find(text)
    assert match is not None
    assert match.text == "HOW many   sensor readings climb far above the given ceiling"
    assert match.method == "ngram"


def test_nine_words_do_not_count() -> None:
    find = of_one("count how many sensor readings climb past the given ceiling twice running").find
    ten = "count how many sensor readings climb past the given ceiling"
    assert find(ten) is not None
    assert find(ten.rsplit(" ", 1)[0]) is None


def test_of_few_telling_words_thirteen_in_a_row_are_needed() -> None:
    plain = "for each of the two barges in it there is one more of them on the lock and"
    find = of_one(f"{plain} sails past every quay before noon").find
    words = plain.split()
    assert find(" ".join(words[:12])) is None
    assert find(" ".join(words)) is not None


def test_boilerplate_does_not_count() -> None:
    imports = "from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes\n" * 2
    idiom = "if not os.path.exists(output_dir):\n    os.makedirs(output_dir)\nreturn [output_dir]\n"
    months = "January, February, March, April, May, June, July, August, September, October\n"
    table = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14\n"
    telling = "weigh anchors of moored barges by tonnage, then scuttle leaking hulks\n"
    index = of_one(imports + idiom + months + table + telling)
    for text in (imports, idiom, months, table * 3):
        assert index.find(text) is None, text
    assert index.find(telling) is not None


def test_n_grams_that_three_items_share_do_not_count() -> None:
    preamble = "please weigh down one careful answer using only plain ordinary ink barrels "
    references = [
        Reference("b", str(i), f"{preamble}{i}{name}")
        for i, name in enumerate(["apricot", "bramble", "cherry"])
    ]
    assert ContaminationIndex(references, 10).find(preamble) is None
    assert ContaminationIndex(references[:2], 10).find(preamble) is not None
    other = [Reference(str(i), "i", r.text) for i, r in enumerate(references)]
    assert ContaminationIndex(other, 10).find(preamble) is not None


LETTERS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
WORDS = st.lists(st.sampled_from(LETTERS), min_size=12)
GAPS = st.lists(st.sampled_from([" ", "\n", "\t", "\r\n    ", ", ", " # ", "('"]), min_size=1)


@given(WORDS, GAPS, st.text(max_size=20), st.sampled_from([3, 5, 10, 13]))
def test_layout_never_hides_a_copy(
    spelled: list[str], gaps: list[str], around: str, ngram_words: int
) -> None:
    joined = "".join(
        (w.upper() if i % 2 else w) + gaps[i % len(gaps)] for i, w in enumerate(spelled)
    )
    match = of_one(" ".join(spelled), ngram_words).find(f"{around} {joined} {around}")
    assert match is not None
    assert match.method == "exact"
    assert match.text == joined[: len(match.text)]
    assert len(match.text.split()) <= len(joined.split())


@given(st.text(), st.text(), st.sampled_from([None, "Python", "C++"]))
def test_no_text_raises(reference: str, text: str, language: str | None) -> None:
    index = of_one(reference)
    for searched in (text, reference, reference + text, text * 3):
        index.find(searched, language)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["", "x = 1\n", "é", "def f():\n", NEIGHBOUR, "\ud800 # "]
                + [prompt_and_solution(r)[k] for _, r in ITEMS[::7] for k in (0, 1)]
            ),
            st.sampled_from(["Python", "C++", "Jupyter Notebook"]),
        )
    ),
    st.sampled_from([1, 1_000, 1 << 17]),
)
def test_many_at_once_are_judged_as_each_alone(
    index: ContaminationIndex, documents: list[tuple[str, str]], chunk_bytes: int
) -> None:
    texts, languages = [text for text, _ in documents], [language for _, language in documents]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contamination, "_CHUNK_BYTES", chunk_bytes)
        found = index.find_all(texts, languages)
    assert found == [index.find(*document) for document in documents]


def test_what_spans_two_texts_is_no_match() -> None:
    halves = ["weigh anchors of moored barges by", "tonnage then scuttle leaking hulks at dawn"]
    index = of_one(" ".join(halves))
    assert index.find_all(halves, [None, None]) == [None, None]
    assert index.find("\n".join(halves)) is not None


@pytest.mark.parametrize("text", ["", " ", "()[]{};,.", "\0", "\ud800", "é" * 40, "'''", "\\"])
def test_odd_texts_are_clean(index: ContaminationIndex, text: str) -> None:
    assert index.find(text, "Python") is None
    of_one(text).find(text, "Python")


def test_lone_surrogates_do_not_hide_a_copy() -> None:
    text = "weigh anchors of moored \ud800 barges by tonnage, then scuttle leaking hulks"
    match = of_one(text).find(f"x\udfff = '{text}'", "Python")
    assert match is not None
    assert match.method == "exact"


def test_a_line_of_five_megabytes(index: ContaminationIndex) -> None:
    drawn = random.Random(1)
    line = " ".join(drawn.choices([f"w{i}" for i in range(5_000)], k=900_000))
    assert len(line) > 5_000_000
    assert index.find(line, "Python") is None
    prompt, _ = prompt_and_solution(ITEMS[0][1])
    match = index.find(line + " ".join(prompt.split()), "Python")
    assert match is not None
    assert match.item == ITEMS[0][1]["task_id"]


def test_shipped_problems_are_always_among_them() -> None:
    index = ContaminationIndex.from_benchmarks([], 10)
    programs = [r for r in benchmarks.shipped_references() if r.part == "program"]
    assert len(programs) >= 10
    for reference in programs:
        match = index.find(f"# before\n{reference.text}\n# after\n")
        assert match is not None, reference.item
        assert (match.benchmark, match.item) == (benchmarks.SHIPPED, reference.item)


def test_fingerprint_follows_content_and_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a"}')
    before = contamination.fingerprint([str(path)])
    assert before == contamination.fingerprint([str(tmp_path)])
    path.write_text('{"prompt": "b"}')
    after = contamination.fingerprint([str(path)])
    assert after != before
    path.rename(tmp_path / "b.jsonl")
    assert contamination.fingerprint([str(tmp_path)]) != after


@needs_benchmarks
@pytest.mark.slow
def test_real_benchmarks_are_found(real_index: ContaminationIndex) -> None:
    num_items = num_idioms = 0
    for path in benchmarks.expand([str(REAL / folder) for folder in FOLDERS]):
        for record in records(path):
            prompt, solution = prompt_and_solution(record)
            if "declaration" in record and record["declaration"] not in prompt:  # Rust
                prompt += record["declaration"]
            where = (os.path.basename(path), record["task_id"])
            assert real_index.find(f"import os\n\n{prompt}\n{solution}\n") is not None, where
            num_items += 1
            num_idioms += real_index.find(f"import os\n\n{solution}\n") is None
    print(f"{num_items} whole copies found; {num_idioms} bare solutions are idioms")
    assert num_idioms < 0.05 * num_items


RENAMED_RECALL = (
    ("humaneval/HumanEval.jsonl.gz", 0.90),
    ("mbpp/mbpp.jsonl", 0.85),
    ("bigcodebench/BigCodeBench-hf_data.jsonl.gz", 0.98),
)


@needs_benchmarks
@pytest.mark.parametrize(("name", "least"), RENAMED_RECALL)
@pytest.mark.parametrize("keep_functions", [True, False], ids=["variables", "all names"])
def test_renamed_solutions_of_real_benchmarks_are_found(
    real_index: ContaminationIndex, name: str, least: float, keep_functions: bool
) -> None:
    num_found, missed = 0, []
    solved = records(str(REAL / name))
    for record in solved:
        head = record.get("code_prompt") or record.get("prompt") or ""
        solution = record.get("canonical_solution") or record["code"]
        copy = rename(head + solution, keep_functions=keep_functions)
        if real_index.find(copy, "Python") is not None:
            num_found += 1
        else:
            missed.append(record["task_id"])
    print(f"{num_found} of {len(solved)} renamed solutions of {name} found")
    assert num_found >= least * len(solved), missed


@needs_benchmarks
@pytest.mark.parametrize("file", IDIOMS, ids=lambda f: f.name)
def test_idioms_are_no_copies_of_real_benchmarks(
    real_index: ContaminationIndex, file: Path
) -> None:
    assert real_index.find(file.read_text(), "Python") is None


@needs_benchmarks
def test_clean_files_are_no_copies_of_real_benchmarks(real_index: ContaminationIndex) -> None:
    matches = {f.name: real_index.find(f.read_text(errors="replace"), "Python") for f in STDLIB}
    assert {name: str(match) for name, match in matches.items() if match} == {}

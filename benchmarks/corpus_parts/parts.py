"""The speed of the dearest pure functions, on one core.

    python -m corpus_parts.parts INPUT TOKENIZER OUTPUT NUM_TIMES

Prints one JSON object of medians.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import pyarrow.parquet as pq

from corpus_parts.inputs import BANDS, NGRAM_WORDS, ROWS
from corpus_parts.ours import benchmark_files
from snowcoder_jax import languages
from snowcoder_jax.text import contamination, duplicates
from snowcoder_jax.tokenizer import Tokenizer

BATCH = 512


def median_seconds(work: Callable[[], object], num_times: int) -> float:
    """Of `work`, after one call that is not counted."""
    work()
    seconds = []
    for _ in range(num_times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    source, tokenizer_folder, _, num_times = sys.argv[1:]
    table = pq.read_table(source)
    texts: list[str] = table["content"].to_pylist()
    found = [languages.detect(path) for path in table["path"].to_pylist()]
    megabytes = sum(len(t.encode()) for t in texts) / 1e6
    tokenizer = Tokenizer.load(tokenizer_folder)
    index = contamination.cached_index(benchmark_files(), 10)
    num_tokens = sum(len(tokenizer.encode_array(text)) for text in texts)

    def encode() -> None:
        for text in texts:
            tokenizer.encode_array(text)

    def sign() -> None:
        for start in range(0, len(texts), BATCH):
            sets = [duplicates.shingles(t, NGRAM_WORDS) for t in texts[start : start + BATCH]]
            duplicates.band_keys([s for s in sets if len(s)], BANDS, ROWS)

    def decontaminate() -> None:
        for start in range(0, len(texts), BATCH):
            batch = slice(start, start + BATCH)
            index.find_all(texts[batch], found[batch])

    times = int(num_times)
    print(
        json.dumps(
            {
                "million_tokens_per_second_per_core": num_tokens
                / median_seconds(encode, times)
                / 1e6,
                "minhash_megabytes_per_second": megabytes / median_seconds(sign, times),
                "decontamination_megabytes_per_second": megabytes
                / median_seconds(decontaminate, times),
            }
        )
    )


if __name__ == "__main__":
    main()

"""Small samples of many documents, in memory that does not grow with these."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

Facts = dict[str, Any]
# What a sample is of: ("rules", "min_letter_share"), ("kept", "Python").
Bucket = tuple[str, ...]


class Smallest:
    """Keeps the `size` entries of the smallest keys of each bucket."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._entries: defaultdict[Bucket, dict[tuple[float, str], Facts]] = defaultdict(dict)

    def add(self, bucket: Bucket, entry: Facts, key: float | None = None) -> None:
        """Add an entry under `key`, or under its own `key`: its seeded hash.

        Its `id` parts equal keys, and the same document counts once.
        """
        entries = self._entries[bucket]
        entries[entry["key"] if key is None else key, entry["id"]] = entry
        if len(entries) > self.size:
            del entries[max(entries)]

    def buckets(self) -> dict[Bucket, list[Facts]]:
        return {b: [e[k] for k in sorted(e)] for b, e in sorted(self._entries.items())}

"""Fill-in-the-middle: a file cut in three and its parts put in another order.

After Bavarian et al. (arXiv 2207.14255): the cuts are uniform over the positions between
characters, and half of the files give the suffix first (SPM, there the variant that is trained
together with PSM), half the prefix (PSM), as StarCoder and SantaCoder did. StarCoder2 (arXiv
2402.19173, section 5.1) turns each file of a repository document by itself.
"""

from __future__ import annotations

import dataclasses

from snowcoder_jax.storage import seeded_hash, seeded_share


@dataclasses.dataclass(frozen=True)
class Parts:
    """A file in three parts, in the order of the file.

    Attributes:
      suffix_first: SPM, `<fim_prefix><fim_suffix>SUFFIX<fim_middle>PREFIX MIDDLE`; else PSM,
        `<fim_prefix>PREFIX<fim_suffix>SUFFIX<fim_middle>MIDDLE`.
    """

    prefix: str
    middle: str
    suffix: str
    suffix_first: bool


def is_turned(identity: str, *, seed: int, share: float) -> bool:
    """Whether the file of that id is one of the share that is turned."""
    return seeded_share(seed, "fim", identity) < share


def cut(text: str, identity: str, *, seed: int) -> Parts:
    """Cut a file at two characters; any part may be empty."""
    first, second = sorted(
        seeded_hash(seed, purpose, identity) % (len(text) + 1)
        for purpose in ("fim first cut", "fim second cut")
    )
    suffix_first = seeded_share(seed, "fim order", identity) < 0.5
    return Parts(text[:first], text[first:second], text[second:], suffix_first)

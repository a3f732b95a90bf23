"""Word hashes, shingles, exact keys and MinHash bands, against plain Python and brute force."""

from __future__ import annotations

import itertools
import random
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text import components, duplicates, words

VOCABULARY = [f"name{i}" for i in range(2_000)]


def plain_shingles(text: str, n: int) -> set[tuple[str, ...]]:
    found = re.findall(r"[A-Za-z0-9_\u0080-\U0010ffff]+", text)
    n = max(1, min(n, len(found)))
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


def plain_jaccard(a: str, b: str, n: int = 5) -> float:
    x, y = plain_shingles(a, n), plain_shingles(b, n)
    return len(x & y) / len(x | y) if x and y else 0.0


CODE = st.text(st.sampled_from("ab1_ .(\nü"), max_size=60)


@given(CODE, st.integers(1, 6))
def test_shingles_are_the_sets_of_word_ngrams(text: str, n: int) -> None:
    assert len(duplicates.shingles(text, n)) == len(plain_shingles(text, n))


@given(CODE, CODE)
def test_jaccard_is_exact(a: str, b: str) -> None:
    got = duplicates.jaccard(duplicates.shingles(a, 3), duplicates.shingles(b, 3))
    assert got == pytest.approx(plain_jaccard(a, b, 3))


@given(st.lists(st.text(st.sampled_from("abc0"), min_size=1, max_size=3), max_size=20))
def test_equal_words_hash_alike_wherever_they_stand(parts: list[str]) -> None:
    found = words.split_words(" - ".join(parts).encode())
    by_word: dict[str, set[int]] = {}
    for word, value in zip(parts, found.hashes.tolist(), strict=True):
        by_word.setdefault(word, set()).add(value)
    values = [v for group in by_word.values() for v in group]
    assert all(len(group) == 1 for group in by_word.values())
    assert len(set(values)) == len(by_word)


@given(st.text())
def test_no_text_raises(text: str) -> None:
    duplicates.shingles(text, 5)
    duplicates.exact_key(text)


def test_exact_key_folds_white_space_only() -> None:
    key = duplicates.exact_key
    assert key("a = b\n\tc\r\n") == key("a =  b\n    c")
    assert key("a = b") != key("a = c")
    assert key("") == key(" \n")


@pytest.mark.parametrize("similarity", [0.5, 0.7, 0.9])
def test_minhash_estimates_jaccard(similarity: float) -> None:
    """The share of equal minima is the exact similarity, within the error of 250 draws."""
    rng = np.random.default_rng(3)
    size = 400
    shared = round(2 * size * similarity / (1 + similarity))
    estimates = []
    for _ in range(60):
        pool = rng.integers(0, 2**63, 2 * size - shared, dtype=np.uint64)
        sets = [np.sort(pool[:size]), np.sort(pool[size - shared :])]
        keys = duplicates.band_keys(sets, 250, 1)
        estimates.append((keys[0] == keys[1]).mean())
    assert np.mean(estimates) == pytest.approx(similarity, abs=0.02)
    assert np.std(estimates) <= 1.2 * np.sqrt(similarity * (1 - similarity) / 250)


def test_bands_propose_as_often_as_they_should() -> None:
    rng = np.random.default_rng(4)
    size, similarity, trials = 400, 0.8, 300
    shared = round(2 * size * similarity / (1 + similarity))
    sets = []
    for _ in range(trials):
        pool = rng.integers(0, 2**63, 2 * size - shared, dtype=np.uint64)
        sets += [np.sort(pool[:size]), np.sort(pool[size - shared :])]
    keys = duplicates.band_keys(sets, 25, 10)
    proposed = (keys[::2] == keys[1::2]).any(axis=1).mean()
    assert proposed == pytest.approx(1 - (1 - similarity**10) ** 25, abs=0.05)


def test_hot_key_gives_linearly_many_pairs_and_stays_connected() -> None:
    size = 5_000
    pairs = duplicates.candidate_pairs(np.zeros(size, np.uint64), np.arange(size))
    assert len(pairs) <= (duplicates.NUM_REPRESENTATIVES + 1) * size
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert set(components.connected_components(pairs)[:, 1]) == {0}


@pytest.mark.parametrize("template", [0, 170, 299])
def test_a_template_meets_all_of_a_crowd_wherever_it_stands(template: int) -> None:
    """A document that shares one key with these, another one with those."""
    rng = np.random.default_rng(7)
    size, bands = 300, 20
    keys = np.arange(size)[:, None] * bands + np.arange(bands)
    shares = rng.random(keys.shape) < 0.3
    shares[template] = True
    keys = np.where(shares, keys[template], keys)
    documents = np.repeat(np.arange(size), bands)
    pairs = duplicates.candidate_pairs(keys.ravel().astype(np.uint64), documents)
    partners = set(pairs[(pairs == template).any(1)].ravel().tolist())
    assert partners == {template, *np.flatnonzero(shares.sum(1) > 0).tolist()}


def test_in_a_crowd_neither_references_nor_others_hide_the_rest() -> None:
    """Each is compared with the most prominent of both kinds; references not with each other."""
    num_others, num_references = 30, 40
    size = num_others + num_references
    document, prominent = np.arange(size), np.arange(size)  # most prominent are references
    pairs = duplicates.crowd_pairs(np.zeros(size, np.int64), document, prominent, num_others)
    assert (pairs[:, 0] < num_others).all()
    found = {tuple(p) for p in pairs.tolist()}
    count = duplicates.NUM_REPRESENTATIVES
    others, references = range(num_others - count, num_others), range(size - count, size)
    assert {(a, b) for a in others for b in range(num_others, size)} <= found
    assert {(a, b) for a in range(num_others) for b in references} <= found
    assert len(pairs) <= (2 * count + 1) * size


@given(st.randoms(use_true_random=False))
def test_pairs_of_crowds_do_not_depend_on_numbers(drawn: random.Random) -> None:
    rng = np.random.default_rng(8)
    size = 200
    group, member = np.nonzero(rng.random((3, size)) < 0.5)
    text_hash = rng.integers(0, 2**64, size, dtype=np.uint64)
    group_size = np.bincount(group)[group]

    def pairs(number: list[int]) -> set[tuple[int, ...]]:
        """As members."""
        document = np.array(number)[member]
        prominent = duplicates.prominence(document, group_size, text_hash[member])
        found = duplicates.crowd_pairs(group, document, prominent)
        back = np.argsort(number)
        return {tuple(sorted(p)) for p in back[found].tolist()}

    number = list(range(size))
    expected = pairs(number)
    drawn.shuffle(number)
    assert pairs(number) == expected


@given(st.lists(st.integers(0, 6), max_size=60), st.sampled_from([np.uint32, np.uint64]))
def test_candidates_are_the_pairs_that_share_a_key(keys: list[int], dtype: type) -> None:
    document = np.arange(len(keys))[::-1] * 3
    got = duplicates.candidate_pairs(np.array(keys, dtype), document)
    number = dict(zip(document.tolist(), keys, strict=True))
    expected = {
        p for p in itertools.combinations(sorted(number), 2) if number[p[0]] == number[p[1]]
    }
    sizes = [keys.count(k) for k in set(keys)]
    if max(sizes, default=0) <= duplicates.MAX_FULL_GROUP:
        assert [tuple(p) for p in got.tolist()] == sorted(expected)
    else:
        assert {tuple(p) for p in got.tolist()} < expected


@given(st.lists(st.sampled_from(["a b", "a  b", "a\tb", "a c", "", " "]), max_size=12))
def test_copies_have_one_first_whatever_their_numbers(texts: list[str]) -> None:
    def copies(texts: list[str]) -> list[tuple[str, str]]:
        found = duplicates.copies(duplicates.exact_rows(texts), np.arange(len(texts)))
        return sorted((texts[a], texts[b]) for a, b in found.tolist())

    folded = ["".join(t.split()) for t in texts]
    assert len(copies(texts)) == len(texts) - len(set(folded))
    assert copies(texts) == copies(texts[::-1])


def planted(num_originals: int, seed: int) -> list[str]:
    """Files, and copies of them with words replaced: from none to a similarity below 0.7."""
    drawn = random.Random(seed)
    texts = []
    for _ in range(num_originals):
        original = drawn.choices(VOCABULARY, k=drawn.randint(80, 400))
        texts.append(" ".join(original))
        for _ in range(drawn.randint(0, 4)):
            copy = list(original)
            for _ in range(drawn.randint(0, max(1, len(copy) // 20))):
                copy[drawn.randrange(len(copy))] = drawn.choice(VOCABULARY)
            texts.append(" ".join(copy))
    return texts


# 25 x 10 proposes a pair at 0.7 with probability 0.51 only; 50 x 5, the same 250 permutations,
# with 0.9999. Verification keeps the precision of both.
@pytest.mark.parametrize(("bands", "rows", "min_recall"), [(25, 10, 0.8), (50, 5, 0.95)])
def test_planted_pairs_against_brute_force(
    bands: int, rows: int, min_recall: float, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = planted(120, seed=11)
    sets = [duplicates.shingles(text, 5) for text in texts]
    plain = [plain_shingles(text, 5) for text in texts]
    true = {
        (i, j)
        for i, j in itertools.combinations(range(len(texts)), 2)
        if plain[i] & plain[j] and len(plain[i] & plain[j]) >= 0.7 * len(plain[i] | plain[j])
    }
    keys = duplicates.band_keys(sets, bands, rows)
    documents = np.repeat(np.arange(len(texts)), bands)
    candidates = duplicates.candidate_pairs(keys.ravel(), documents).tolist()
    found = {(a, b) for a, b in candidates if duplicates.jaccard(sets[a], sets[b]) >= 0.7}
    precision = len(found & true) / len(found)
    recall = len(found & true) / len(true)
    with capsys.disabled():
        print(
            f"\nnear-duplicates, {bands} x {rows}, {len(texts)} planted texts, {len(true)} pairs: "
            f"precision {precision:.4f}, recall {recall:.4f}"
        )
    assert precision >= 0.99
    assert recall >= min_recall

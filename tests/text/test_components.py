"""Connected components by large-star and small-star, against union-find."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snowcoder_jax.text import components

Edge = tuple[int, int]


def union_find(edges: list[Edge]) -> dict[int, int]:
    parent = {v: v for edge in edges for v in edge}

    def find(x: int) -> int:
        while parent[x] != x:
            parent[x] = parent[parent[x]]
            x = parent[x]
        return x

    for a, b in edges:
        low, high = sorted((find(a), find(b)))
        parent[high] = low
    return {v: find(v) for v in parent}


def check(edges: list[Edge]) -> None:
    pairs = np.array(edges, np.int64).reshape(-1, 2)
    assert dict(components.connected_components(pairs).tolist()) == union_find(edges)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)).filter(lambda e: e[0] != e[1])))
def test_components_of_any_graph(edges: list[Edge]) -> None:
    check(edges)


@given(st.permutations(range(64)), st.lists(st.integers(0, 63), max_size=6))
def test_components_of_chains(order: list[int], cuts: list[int]) -> None:
    check([edge for i, edge in enumerate(pairwise(order)) if i not in cuts])


@given(st.permutations(range(40)), st.data())
def test_components_of_trees(order: list[int], data: st.DataObject) -> None:
    parents = [data.draw(st.integers(0, max(0, i - 1))) for i in range(1, len(order))]
    check([(order[i], order[parent]) for i, parent in enumerate(parents, start=1)])


@pytest.mark.parametrize("size", [2, 3, 1_000])
def test_a_star_about_any_vertex(size: int) -> None:
    for centre in {0, size // 2, size - 1}:
        check([(centre, i) for i in range(size) if i != centre])


def test_a_chain_of_thousands_settles_within_the_bound() -> None:
    order = random.Random(7).sample(range(5_000), 5_000)
    check(list(pairwise(order)))


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)).filter(lambda e: e[0] != e[1])))
def test_a_part_of_a_graph_is_worked_on_as_the_whole(edges: list[Edge]) -> None:
    """What makes it a shuffle's work: rows of one vertex are enough for its part of the result."""
    graph = components.graph_of(np.array(edges, np.int64).reshape(-1, 2))
    parts = [graph[graph[:, 0] % 3 == p] for p in range(3)]
    for star in (components.small_star, components.large_star):
        whole = components.graph_of(star(graph))
        assert np.array_equal(components.graph_of(np.concatenate([*map(star, parts)])), whole)
        assert len(whole) <= len(graph)
    assert components.num_unsettled(graph) == sum(map(components.num_unsettled, parts))

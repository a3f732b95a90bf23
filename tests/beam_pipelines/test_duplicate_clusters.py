"""Clusters in rounds of shuffles: the components of graphs that lie in several shards."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from beam_pipelines import duplicate_clusters
from beam_pipelines.int_rows import ROW_BITS, Scratch
from beam_pipelines.options import local_options
from snowcoder_jax.text import components

NUM_SHARDS = 3

GRAPHS = {
    "nothing": [],
    "a pair": [(0, 5)],
    "a long chain": list(pairwise(random.Random(1).sample(range(400), 400))),
    "a star about its largest": [(i, 50) for i in range(50)],
    "a circle and a chain": [*((i, (i + 1) % 30) for i in range(30)), (40, 41), (41, 47)],
}


@pytest.mark.parametrize("kind", GRAPHS)
def test_clusters_of_sharded_graphs_are_the_components(kind: str, tmp_path: Path) -> None:
    vertex = np.array(GRAPHS[kind], np.int64).reshape(-1, 2)
    # Document numbers, dealt to the shards; the last shard stays empty where there are few.
    edges = vertex % NUM_SHARDS << ROW_BITS | vertex // NUM_SHARDS
    graph = components.graph_of(edges)
    scratch = Scratch(str(tmp_path))
    for index in range(NUM_SHARDS):
        scratch.save("graph-00", index, *graph[graph[:, 0] >> ROW_BITS == index].T)
    counts = [components.num_vertices(graph), components.num_unsettled(graph)]
    scratch.save_facts("graph-00", counts)
    name = duplicate_clusters.settle(scratch, num_shards=NUM_SHARDS, options=local_options())
    labels = [components.labels(scratch.load(name, i, 2)) for i in range(NUM_SHARDS)]
    expected = components.connected_components(edges)
    assert np.array_equal(np.concatenate(labels), expected)

"""Clusters of near-duplicates: connected components in rounds of one shuffle each.

The graph lies apart by shard, each document with its neighbours, and no place holds more of it
than a shard's part. One pipeline is one phase of `text/components.py`, whose docstring bounds the
phases; the next one runs only where the graph is not yet all stars. Between pipelines it lies in
scratch files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import apache_beam as beam
import numpy as np
from apache_beam.options.pipeline_options import PipelineOptions

from beam_pipelines import workers
from beam_pipelines.int_rows import ROW_BITS, Keyed, Scratch, pack, split_by, unpack
from snowcoder_jax.text import components

Star = Callable[[components.Graph], components.Edges]
Grouped = tuple[int, Iterable[bytes]]
_EVERYTHING = 0  # the one key of a graph's counts


def settle(scratch: Scratch, *, num_shards: int, options: PipelineOptions) -> str:
    """Make stars of the graph that was saved as phase 0; returns the settled graph's name."""
    phase = 0
    num_vertices, num_unsettled = scratch.load_facts(_name(phase))
    most_phases, num_large_stars = components.phase_lengths(num_vertices)
    while num_unsettled:
        assert phase < most_phases, f"{scratch.folder}: the clusters did not settle"
        with workers.pipeline(options) as pipeline:
            indices = pipeline | beam.Create(range(num_shards), reshuffle=False)
            graph = indices | beam.Reshuffle() | beam.ParDo(_load, scratch, _name(phase))
            phase += 1
            save_graph(graph | _Phase(num_large_stars), scratch, phase)
        _, num_unsettled = scratch.load_facts(_name(phase))
    return _name(phase)


def add_first_phases(graph: beam.PCollection[Grouped]) -> beam.PCollection[Grouped]:
    """Two short phases, which settle what near-duplicates most often look like: rounds in this
    pipeline cost less than one more pipeline."""
    for number, num_large_stars in enumerate((2, 1)):
        graph |= f"Phase{number}" >> _Phase(num_large_stars)
    return graph


@beam.ptransform_fn
def _Phase(graph: beam.PCollection[Grouped], num_large_stars: int) -> beam.PCollection[Grouped]:  # noqa: N802
    graph |= "SmallStar" >> _Round(components.small_star)
    for number in range(num_large_stars):
        graph |= f"LargeStar{number}" >> _Round(components.large_star)
    return graph


def save_graph(graph: beam.PCollection[Grouped], scratch: Scratch, phase: int) -> None:
    """Save a graph apart by shard, and its numbers of vertices, and of unsettled ones."""
    _ = (
        graph
        | "Save" >> beam.ParDo(_save, scratch, _name(phase)).with_output_types(Keyed)
        | "MeetCounts" >> beam.GroupByKey()
        | "SaveCounts" >> beam.ParDo(_save_counts, scratch, _name(phase))
    )


def _name(phase: int) -> str:
    return f"graph-{phase:02d}"


def _load(index: int, scratch: Scratch, name: str) -> Iterator[Grouped]:
    yield index, [pack(*scratch.load(name, index, 2).T)]


@beam.ptransform_fn
def _Round(graph: beam.PCollection[Grouped], star: Star) -> beam.PCollection[Grouped]:  # noqa: N802
    """One operation, after which every vertex meets its neighbours again."""
    edges = graph | "Star" >> beam.ParDo(_apply, star).with_output_types(Keyed)
    return edges | "Meet" >> beam.GroupByKey()


def _apply(grouped: Grouped, star: Star) -> Iterator[Keyed]:
    index, values = grouped
    edges = star(unpack(values, 2))
    yield index, b""  # keeps a shard without documents in the graph
    first, second = np.concatenate([edges, edges[:, ::-1]]).T
    yield from split_by(first >> ROW_BITS, first, second)


def _save(grouped: Grouped, scratch: Scratch, name: str) -> Iterator[Keyed]:
    index, values = grouped
    graph = unpack(values, 2)
    scratch.save(name, index, *graph.T)
    counts = components.num_vertices(graph), components.num_unsettled(graph)
    yield _EVERYTHING, pack(*np.array([[index, *counts]]).T)


def _save_counts(grouped: Grouped, scratch: Scratch, name: str) -> None:
    scratch.save_facts(name, unpack(grouped[1], 3)[:, 1:].sum(0).tolist())

"""Connected components by two local operations, so that no machine need hold the whole graph.

Large-star and small-star (Kiveris et al., "Connected Components in MapReduce and Beyond", SoCC
2014) each look at one vertex and its neighbours. A graph is its edges both ways, grouped by
vertex: rows (vertex, neighbour) in order, each once, shape [rows, 2]; any part of it that has all
rows of its vertices can be worked on apart. Let m(v) be the smallest of v and its neighbours:

- large-star joins every neighbour of v above v to m(v);
- small-star joins every neighbour of v below v, and v, to m(v).

Both keep the components, and neither makes more edges than it found. A component is settled when
it is a star about its smallest vertex. `connected_components` (and `duplicate_clusters`, with a
shuffle between any two operations) repeats a *phase*: small-star once, then large-star D times,
where D = ceil(log2 n) and n is the number of vertices.

At most 2 D + 2 phases settle everything:

1. Call a vertex a minimum if all its neighbours are above it. Large-star keeps the minima as they
   are. Take the longest path on which vertices fall, of L edges. After large-star the edge (v, u),
   u below v, has become (v, m(u)): two edges of the old graph, or one if u is a minimum, which only
   the last vertex of a path can be. So L' <= (L + 1) / 2, and after D operations L = 1: every edge
   joins a minimum to a vertex that has nothing but minima as neighbours.
2. Small-star then makes of the minima around such a vertex v all but m(v) no minima any more; say
   they are hooked. Let a component have k > 1 minima, c of them hooked by this phase. Each of the
   others has a hooked one as neighbour, for it shares some v with another minimum and is m(v); and
   after the large-stars it still has. In the next phase's small-star a minimum stays one only if it
   is m(w) for all of these hooked neighbours w, and each w has one m(w): at most c stay. At
   most k - c stay too, so two phases leave no more than k / 2.
3. From fewer than n minima that makes one in 2 D phases; the first phase may meet a graph without
   the form of step 1, and the last one's large-stars turn a component of one minimum into a star.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Rows (vertex, neighbour), both ways, sorted, each once.
Graph = npt.NDArray[np.int64]
# Rows (vertex, smaller vertex), in any order.
Edges = npt.NDArray[np.int64]


def distinct_rows(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rows in order, each once; much faster than `np.unique` by axis."""
    rows = rows[np.lexsort(rows.T[::-1])]
    is_first = np.ones(len(rows), np.bool_)
    is_first[1:] = (rows[1:] != rows[:-1]).any(1)
    return rows[is_first]


def graph_of(edges: npt.NDArray[np.int64]) -> Graph:
    """The graph of edges in any order and direction."""
    return distinct_rows(np.concatenate([edges, edges[:, ::-1]]))


def phase_lengths(size: int) -> tuple[int, int]:
    """(the most phases that `size` vertices take, large-stars in each): 2 D + 2 and D."""
    doublings = max(1, size - 1).bit_length()
    return 2 * doublings + 2, doublings


def _first_rows(graph: Graph) -> npt.NDArray[np.bool_]:
    """Marks each vertex's first row, which names its smallest neighbour."""
    is_first = np.ones(len(graph), np.bool_)
    is_first[1:] = graph[1:, 0] != graph[:-1, 0]
    return is_first


def _minimum(graph: Graph) -> npt.NDArray[np.int64]:
    """m(v) for each row's vertex v."""
    is_first = _first_rows(graph)
    return graph[is_first].min(1)[np.cumsum(is_first) - 1]


def large_star(graph: Graph) -> Edges:
    above = graph[:, 1] > graph[:, 0]
    return np.stack([graph[above, 1], _minimum(graph)[above]], 1)


def small_star(graph: Graph) -> Edges:
    smallest = _minimum(graph)
    below = graph[:, 1] < graph[:, 0]
    # The row of v's smallest neighbour becomes (v, m(v)).
    end = np.where(graph[:, 1] == smallest, graph[:, 0], graph[:, 1])
    return np.stack([end[below], smallest[below]], 1)


def num_vertices(graph: Graph) -> int:
    return int(np.count_nonzero(_first_rows(graph)))


def num_unsettled(graph: Graph) -> int:
    """Vertices that are neither a star's centre nor a leaf of one; 0 for all parts: done."""
    is_first = _first_rows(graph)
    num_neighbours = np.diff(np.flatnonzero(np.append(is_first, True)))
    is_leaf = (graph[is_first, 1] < graph[is_first, 0]) & (num_neighbours == 1)
    is_centre = graph[is_first, 1] > graph[is_first, 0]
    return int(np.count_nonzero(~is_leaf & ~is_centre))


def labels(graph: Graph) -> npt.NDArray[np.int64]:
    """(v, m(v)) for each vertex v; once settled, m(v) is the smallest of v's component."""
    is_first = _first_rows(graph)
    return np.stack([graph[is_first, 0], graph[is_first].min(1)], 1)


def connected_components(edges: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """`labels` of the components of edges given in any order and direction, in order."""
    graph = graph_of(edges)
    most_phases, doublings = phase_lengths(num_vertices(graph))
    for _ in range(most_phases):
        if num_unsettled(graph) == 0:
            return labels(graph)
        graph = graph_of(small_star(graph))
        for _ in range(doublings):
            before, graph = graph, graph_of(large_star(graph))
            if np.array_equal(before, graph):
                break
    assert num_unsettled(graph) == 0, "connected components did not settle within their bound"
    return labels(graph)

"""Histograms of signals whose range is not known before: counts in fine bins of two fixed grids.

A picture takes the logarithmic grid, or the linear one where all values lie from 0 to 1, and
joins bins. K languages have a tally for each signal; memory does not grow with the documents.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

_BINS_PER_DECADE = 20
_FIRST_DECADE, _LAST_DECADE = -4, 9
_NUM_LOG = (_LAST_DECADE - _FIRST_DECADE) * _BINS_PER_DECADE
_NUM_LINEAR = 200
# About as many as a small picture can show.
_MAX_BINS = 36
_MIN_BINS = 12


@dataclasses.dataclass(frozen=True)
class Bins:
    """A histogram as it is drawn.

    Attributes:
      edges: float64 [B + 1], rising; powers of ten apart where `is_log`.
      passed, failed: int64 [B], documents on either side of the threshold.
      num_zero: of values at or below 0, which a logarithmic axis has no place for; passed, failed.
      is_log: how the edges lie.
      has_zeros: whether any histogram of this grid has such values.
    """

    edges: Floats
    passed: Counts
    failed: Counts
    num_zero: tuple[int, int]
    is_log: bool
    has_zeros: bool


class Tally:
    """The values of one signal in one language."""

    def __init__(self) -> None:
        self.num_values = 0
        self.num_missing = 0
        self.num_failed = 0
        self.lowest, self.highest, self.lowest_positive = np.inf, -np.inf, np.inf
        self._log = np.zeros((2, _NUM_LOG + 1), np.int64)  # the first bin: 0 and below
        self._linear = np.zeros((2, _NUM_LINEAR), np.int64)

    def add(self, values: Floats, failed: Bools) -> None:
        """`values` [N], NaN where not measured; `failed` [N]: beyond the threshold."""
        known = ~np.isnan(values)
        values, failed = values[known], failed[known]
        self.num_missing += int((~known).sum())
        if len(values) == 0:
            return
        self.num_values += len(values)
        self.num_failed += int(failed.sum())
        self.lowest = min(self.lowest, float(values.min()))
        self.highest = max(self.highest, float(values.max()))
        positive = values > 0
        self.lowest_positive = min(self.lowest_positive, values[positive].min(initial=np.inf))
        exponent = np.log10(np.where(positive, values, 1.0)) - _FIRST_DECADE
        # A power of ten belongs to the bin that begins with it, rounding or not.
        in_log = np.floor(exponent * _BINS_PER_DECADE + 1e-9).astype(np.int64) + 1
        in_log = np.where(positive, np.clip(in_log, 1, _NUM_LOG), 0)
        in_linear = np.clip(np.floor(values * _NUM_LINEAR + 1e-9), 0, _NUM_LINEAR - 1)
        for i, mask in enumerate((~failed, failed)):
            self._log[i] += np.bincount(in_log[mask], minlength=_NUM_LOG + 1)
            self._linear[i] += np.bincount(in_linear[mask].astype(np.int64), minlength=_NUM_LINEAR)

    def bins(self, grid: Grid) -> Bins:
        """The counts on a grid that holds all values."""
        counts = self._log[:, 1:] if grid.is_log else self._linear
        # Past the last fine bin there is nothing.
        padded = np.pad(counts, ((0, 0), (0, grid.num_joined)))[:, grid.first : grid.last]
        passed, failed = padded.reshape(2, -1, grid.num_joined).sum(-1)
        zero = (int(self._log[0, 0]), int(self._log[1, 0])) if grid.is_log else (0, 0)
        return Bins(grid.edges(), passed, failed, zero, grid.is_log, grid.has_zeros)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The part of the fine bins from `first` to `last` that pictures show, `num_joined` as one."""

    first: int
    last: int
    num_joined: int
    is_log: bool
    has_zeros: bool

    def edges(self) -> Floats:
        place = np.arange(self.first, self.last + 1, self.num_joined)
        if self.is_log:
            return np.asarray(10.0 ** (_FIRST_DECADE + place / _BINS_PER_DECADE), np.float64)
        return np.asarray(place / _NUM_LINEAR, np.float64)


def common_grid(tallies: Sequence[Tally], thresholds: Iterable[float] = ()) -> Grid:
    """A grid of at most some 36 bins that holds the values of all tallies and the thresholds.

    Linear where everything lies from 0 to 1, else logarithmic.
    """
    inside = [t for t in thresholds if t > 0]
    low = min([*(t.lowest for t in tallies), *inside])
    high = max([*(t.highest for t in tallies), *inside])
    is_log = low < 0 or high > 1
    has_zeros = is_log and low <= 0
    if is_log:
        low = min([*(t.lowest_positive for t in tallies), *inside])
        first, last = _log_bin(low), _log_bin(high) + 1
    else:
        first, last = _linear_bin(low), _linear_bin(high) + 1
        first = max(0, min(first, last - _MIN_BINS))
    last = max(last, first + _MIN_BINS)
    num_joined = -(-(last - first) // _MAX_BINS)
    first -= first % num_joined
    last += -(last - first) % num_joined
    return Grid(first, last, num_joined, is_log, has_zeros)


def _log_bin(value: float) -> int:
    if not 0 < value < np.inf:
        return 0
    place = np.floor((np.log10(value) - _FIRST_DECADE) * _BINS_PER_DECADE + 1e-9)
    return int(np.clip(place, 0, _NUM_LOG - 1))


def _linear_bin(value: float) -> int:
    return int(np.clip(np.floor(value * _NUM_LINEAR + 1e-9), 0, _NUM_LINEAR - 1))

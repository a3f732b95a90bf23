"""A sailing boat may cross a harbour bar only while the water over it is deep enough.

You get one depth reading per hour, in metres, and the depth the boat needs.
Find the longest unbroken run of hours in which the crossing is safe and
return it as a half-open pair ``(first_hour, end_hour)``. If several runs are
equally long, return the earliest one. If the crossing is never safe, return
``None``.
"""

from __future__ import annotations

from collections.abc import Sequence


def longest_safe_window(
    depths: Sequence[float], needed: float
) -> tuple[int, int] | None:
    """Return the longest half-open run of hours with ``depth >= needed``."""
    best: tuple[int, int] | None = None
    run_start: int | None = None

    # The extra "never deep enough" reading closes a run that lasts until the
    # end of the data, so that no second check is needed after the loop.
    for hour, depth in enumerate([*depths, float("-inf")]):
        if depth >= needed:
            if run_start is None:
                run_start = hour
        elif run_start is not None:
            # A strict comparison keeps the earlier of two equal runs.
            if best is None or hour - run_start > best[1] - best[0]:
                best = (run_start, hour)
            run_start = None

    return best


if __name__ == "__main__":
    readings = [1.2, 1.9, 2.4, 2.6, 2.1, 1.4, 2.0, 2.2]
    assert longest_safe_window(readings, 1.8) == (1, 5)
    assert longest_safe_window(readings, 2.0) == (2, 5)
    assert longest_safe_window(readings, 3.0) is None
    assert longest_safe_window([2.0, 0.5, 2.0], 1.0) == (0, 1)
    assert longest_safe_window([], 1.0) is None
    print("The boat that needs 1.8 m can cross during hours 1 to 4.")

"""Write a generator of waiting times for retrying a failed network request.

The first wait is ``first`` seconds and each next one is ``factor`` times as long,
but no single wait exceeds ``longest``. All waits together must not exceed
``budget``: the wait that would cross the budget is shortened to fit it exactly,
and after that the generator ends, which tells the caller to give up.
"""

from collections.abc import Iterator


def retry_waits(
    first: float, factor: float, longest: float, budget: float
) -> Iterator[float]:
    """Yield growing waiting times whose sum is at most ``budget`` seconds.

    Args:
        first: the first wait, greater than zero.
        factor: growth from one wait to the next, at least one.
        longest: upper bound for a single wait, at least ``first``.
        budget: upper bound for all waits together.

    Raises:
        ValueError: when the first wait is asked for, if the arguments would
            give waits that shrink or are zero.
    """
    if first <= 0 or factor < 1 or longest < first:
        raise ValueError("need first > 0, factor >= 1 and longest >= first")

    remaining = budget
    wait = first
    while remaining > 0:
        step = min(wait, remaining)
        yield step
        remaining -= step
        # Capping here, not only when yielding, keeps the number from growing
        # without bound when the budget is large.
        wait = min(wait * factor, longest)


if __name__ == "__main__":
    assert list(retry_waits(1, 2, 8, 30)) == [1, 2, 4, 8, 8, 7]
    assert list(retry_waits(5, 1, 5, 15)) == [5, 5, 5]
    assert list(retry_waits(3, 2, 60, 2)) == [2]
    assert list(retry_waits(3, 2, 60, 0)) == []
    print("waits:", list(retry_waits(0.5, 2, 4, 10)))

"""Split a bill fairly, down to the last cent.

Several people share a bill in proportion to whole-number weights (two adults
and a child might use 2, 2 and 1). Plain rounding of each share often makes the
shares add up to a cent more or less than the bill. Write a function that gives
every person a share in whole cents such that

* the shares add up to the bill exactly, and
* no share is a full cent or more away from its exact value.

Cents left over after rounding down go to the people who lost the largest
fraction; if two lost the same, the one listed first gets the cent.
"""


def split_bill(total_cents: int, weights: dict[str, int]) -> dict[str, int]:
    """Divide ``total_cents`` among the people in ``weights``.

    Raises:
        ValueError: if the total or a weight is negative, or all are zero.
    """
    weight_sum = sum(weights.values())
    if total_cents < 0 or min(weights.values(), default=0) < 0 or weight_sum == 0:
        raise ValueError("the total and the weights must make a bill to share")

    shares: dict[str, int] = {}
    lost: dict[str, int] = {}
    for person, weight in weights.items():
        # Integers only: the remainder is the lost fraction, scaled by
        # weight_sum, so comparisons are exact.
        shares[person], lost[person] = divmod(total_cents * weight, weight_sum)

    left_over = total_cents - sum(shares.values())
    # sorted() is stable, also with reverse=True, so ties keep listing order.
    for person in sorted(lost, key=lost.__getitem__, reverse=True)[:left_over]:
        shares[person] += 1
    return shares


if __name__ == "__main__":
    assert split_bill(1000, {"Ann": 1, "Bo": 1, "Cy": 1}) == {
        "Ann": 334,
        "Bo": 333,
        "Cy": 333,
    }
    assert split_bill(999, {"Ann": 2, "Bo": 2, "Cy": 1}) == {
        "Ann": 400,
        "Bo": 399,
        "Cy": 200,
    }
    assert split_bill(0, {"Ann": 5}) == {"Ann": 0}
    print(split_bill(4999, {"Ann": 2, "Bo": 2, "Cy": 1}))

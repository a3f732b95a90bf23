"""How long was each visitor in the building?

A door writes one record per badge swipe: minute of the day, badge number, and
"in" or "out". People sometimes forget to swipe. Compute for every badge the total
minutes between an "in" and the "out" that directly follows it, and separately
collect the swipes that have no partner: an "in" followed by another "in" (the
earlier one is unpaired), an "out" without an "in" before it, and an "in" still
open at the end of the day. Records are in order of time.
"""

from collections import Counter
from typing import NamedTuple


class Swipe(NamedTuple):
    minute: int
    badge: int
    direction: str  # "in" or "out"


def summarise(swipes: list[Swipe]) -> tuple[dict[int, int], list[Swipe]]:
    """Return the minutes per badge and the unpaired swipes in order of time."""
    minutes: Counter[int] = Counter()
    unpaired: list[Swipe] = []
    inside: dict[int, Swipe] = {}

    for swipe in swipes:
        entry = inside.pop(swipe.badge, None)
        if swipe.direction == "in":
            if entry is not None:
                unpaired.append(entry)
            inside[swipe.badge] = swipe
        elif entry is None:
            unpaired.append(swipe)
        else:
            minutes[swipe.badge] += swipe.minute - entry.minute

    # An entry is found to be unpaired only later, hence the final sorting.
    unpaired.extend(inside.values())
    return dict(minutes), sorted(unpaired)


if __name__ == "__main__":
    day = [
        Swipe(480, 7, "in"),
        Swipe(485, 9, "in"),
        Swipe(500, 9, "in"),
        Swipe(720, 7, "out"),
        Swipe(750, 7, "in"),
        Swipe(800, 8, "out"),
        Swipe(810, 7, "out"),
        Swipe(900, 9, "out"),
        Swipe(950, 8, "in"),
    ]
    totals, problems = summarise(day)
    assert totals == {7: 300, 9: 400}
    assert problems == [day[1], day[5], day[8]]
    print(totals, "unpaired:", len(problems))

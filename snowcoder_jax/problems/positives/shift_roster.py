"""Draw up a fair duty roster.

A clinic needs exactly one person on duty per day. Every person names the days on
which they are away. Go through the days in order and give each day to the person
who, among those present, has had the fewest duties so far; if several have had the
same number, take the one whose last duty lies furthest back (never on duty counts
as furthest), and after that the one listed first. A day on which everybody is away
stays empty.
"""

from collections.abc import Mapping, Set


def make_roster(days: int, away: Mapping[str, Set[int]]) -> list[str | None]:
    """Return the person on duty for each of ``days`` days.

    Args:
        days: number of days, numbered from 0.
        away: for every person, in order of listing, the days they are away.
    """
    duties = dict.fromkeys(away, 0)
    last_duty = dict.fromkeys(away, -1)
    roster: list[str | None] = []

    for day in range(days):
        present = [person for person in away if day not in away[person]]
        # min() returns the first of equal candidates, which settles the last
        # tie by order of listing.
        chosen = min(
            present,
            key=lambda person: (duties[person], last_duty[person]),
            default=None,
        )
        if chosen is not None:
            duties[chosen] += 1
            last_duty[chosen] = day
        roster.append(chosen)

    return roster


if __name__ == "__main__":
    assert make_roster(4, {"Ida": set(), "Jan": set()}) == ["Ida", "Jan", "Ida", "Jan"]
    plan = make_roster(5, {"Ida": {0, 3}, "Jan": {3}, "Kim": {1, 3}})
    assert plan == ["Jan", "Ida", "Kim", None, "Jan"]
    assert make_roster(2, {}) == [None, None]
    for number, person in enumerate(plan, start=1):
        print(f"day {number}: {person or '(nobody)'}")

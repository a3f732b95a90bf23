"""Plan check for a garden: which beds stay dry?

A garden is drawn as text, one character per square metre: ``#`` is a wall, ``b`` a
flower bed, ``.`` a path, and a digit is a sprinkler with that reach. A sprinkler
waters the squares above, below, left and right of it, in straight lines, up to its
reach; walls stop the water. Given the drawing, list the beds that get no water as
``(row, column)`` pairs in reading order.
"""

DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def watered_squares(plan: list[str]) -> set[tuple[int, int]]:
    """Return all squares that some sprinkler reaches."""
    watered: set[tuple[int, int]] = set()
    for row, line in enumerate(plan):
        for column, square in enumerate(line):
            if not square.isdigit():
                continue
            for down, right in DIRECTIONS:
                for step in range(1, int(square) + 1):
                    r, c = row + step * down, column + step * right
                    # Negative indices would silently wrap around in Python,
                    # so the border is checked before looking at the square.
                    inside = 0 <= r < len(plan) and 0 <= c < len(plan[r])
                    if not inside or plan[r][c] == "#":
                        break
                    watered.add((r, c))
    return watered


def dry_beds(plan: list[str]) -> list[tuple[int, int]]:
    """Return the beds without water in reading order."""
    watered = watered_squares(plan)
    return [
        (row, column)
        for row, line in enumerate(plan)
        for column, square in enumerate(line)
        if square == "b" and (row, column) not in watered
    ]


if __name__ == "__main__":
    garden = [
        "b.2bb",
        "bb#.b",
        "1b.1b",
    ]
    # The sprinkler at (0, 2) reaches all of the first row, but the wall below
    # it keeps its water away from the second.
    assert dry_beds(garden) == [(1, 1), (1, 4)]
    assert dry_beds(["b#1"]) == [(0, 0)]
    assert dry_beds(["b2b"]) == []
    print("dry beds:", dry_beds(garden))

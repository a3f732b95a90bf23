"""Format a price list with dotted leaders.

Menus and price lists join the name on the left to the price on the right with a
row of dots, so that the eye can follow the line:

    Soup of the day ..... 4.50
    Bread ............... 1.20

Given names and prices in cents, return the lines. All lines have the same width,
the prices end in the same column, there is one space on both sides of the dots,
and the line with the fewest dots has exactly ``min_dots`` of them.
"""

from collections.abc import Mapping


def format_price(cents: int) -> str:
    """Write an amount in cents with two decimals, such as ``12.05``."""
    return f"{cents // 100}.{cents % 100:02d}"


def price_list(prices: Mapping[str, int], min_dots: int = 3) -> list[str]:
    """Return one line per entry of ``prices``, in its order."""
    entries = [(name, format_price(cents)) for name, cents in prices.items()]
    # The widest entry decides: a long name with a short price can need more
    # room than a short name with a long price, so both are counted together.
    text_width = max((len(name) + len(price) for name, price in entries), default=0)

    lines = []
    for name, price in entries:
        dots = "." * (min_dots + text_width - len(name) - len(price))
        lines.append(f"{name} {dots} {price}")
    return lines


if __name__ == "__main__":
    menu = {"Soup of the day": 450, "Bread": 120, "Feast for ten": 12005}
    lines = price_list(menu, min_dots=5)
    assert lines == [
        "Soup of the day ..... 4.50",
        "Bread ............... 1.20",
        "Feast for ten ..... 120.05",
    ]
    assert price_list({}) == []
    print("\n".join(lines))

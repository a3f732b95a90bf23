"""Scale a recipe and print amounts the way a cook would write them.

A recipe lists amounts such as ``3/4``, ``2`` or ``1 1/2``. Given the number of
servings it was written for and the number wanted, rewrite every amount for the
new size. The result must be exact (no 0.333 cups) and again be written as a
mixed number: ``7/4`` becomes ``1 3/4``, and ``4/2`` becomes ``2``.
"""

from fractions import Fraction


def parse_amount(text: str) -> Fraction:
    """Read ``"2"``, ``"3/4"`` or ``"1 1/2"`` as an exact fraction."""
    # A mixed number is the sum of its parts, so one rule covers all three forms.
    return sum((Fraction(part) for part in text.split()), Fraction(0))


def format_amount(amount: Fraction) -> str:
    """Write a positive fraction as a mixed number in lowest terms."""
    whole, rest = divmod(amount, 1)
    if rest == 0:
        return str(whole)
    if whole == 0:
        return str(rest)
    return f"{whole} {rest}"


def scale_recipe(
    ingredients: dict[str, str], servings: int, wanted: int
) -> dict[str, str]:
    """Return the ingredients of a recipe rewritten for ``wanted`` servings."""
    if servings <= 0 or wanted <= 0:
        raise ValueError("servings must be positive")
    factor = Fraction(wanted, servings)
    return {
        name: format_amount(parse_amount(amount) * factor)
        for name, amount in ingredients.items()
    }


if __name__ == "__main__":
    pancakes = {"cups of flour": "1 1/2", "eggs": "2", "cups of milk": "3/4"}
    scaled = scale_recipe(pancakes, servings=4, wanted=10)
    assert scaled == {
        "cups of flour": "3 3/4",
        "eggs": "5",
        "cups of milk": "1 7/8",
    }
    assert scale_recipe({"tsp salt": "1/2"}, 6, 2) == {"tsp salt": "1/6"}
    for ingredient, amount in scaled.items():
        print(f"{amount} {ingredient}")

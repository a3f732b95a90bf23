"""What did the goods we sold cost us?

A shop buys the same article again and again at changing prices. For the books,
the units bought first count as sold first. Implement a stock ledger with two
operations: ``buy(units, unit_cost)`` and ``sell(units)``, where ``sell`` returns
the total cost of the units sold and refuses to sell more than there is. Costs
are whole cents.
"""

from collections import deque
from dataclasses import dataclass


@dataclass
class Lot:
    """Units bought together at one price."""

    units: int
    unit_cost: int


class Stock:
    """The stock of one article, sold in the order in which it was bought."""

    def __init__(self) -> None:
        self._lots: deque[Lot] = deque()

    @property
    def units(self) -> int:
        """Number of units on hand."""
        return sum(lot.units for lot in self._lots)

    def buy(self, units: int, unit_cost: int) -> None:
        if units <= 0 or unit_cost < 0:
            raise ValueError("units must be positive, the cost not negative")
        self._lots.append(Lot(units, unit_cost))

    def sell(self, units: int) -> int:
        """Remove the oldest units and return what they had cost."""
        # Check first, so that a refused sale leaves the stock as it was.
        if not 0 < units <= self.units:
            raise ValueError(f"cannot sell {units} of {self.units} units")
        cost = 0
        while units:
            lot = self._lots[0]
            taken = min(units, lot.units)
            cost += taken * lot.unit_cost
            units -= taken
            lot.units -= taken
            if lot.units == 0:
                self._lots.popleft()
        return cost


if __name__ == "__main__":
    lamps = Stock()
    lamps.buy(10, 250)
    lamps.buy(5, 300)
    assert lamps.sell(4) == 1000
    assert lamps.sell(8) == 6 * 250 + 2 * 300
    assert lamps.units == 3
    print(f"{lamps.units} lamps left")

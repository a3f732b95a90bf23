"""What a training step needs of a chip and how long it takes there, found out without the chip."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from snowcoder_jax.recipe import Recipe


def run(
    recipe: Recipe,
    phase: str | None,
    topology: str,
    price_per_chip_hour: float | None,
    is_json: bool,
    say: Callable[[str], None],
) -> str:
    """The text, or the JSON object, of `snowcoder plan`.

    Raises:
      InputError: see `plan.make_plan`.
    """
    from snowcoder_jax.planning.chips import parse_topology
    from snowcoder_jax.planning.topology import prepare

    # Before anything imports jax.
    prepare(parse_topology(topology))
    from snowcoder_jax.planning import plan, report

    made = plan.make_plan(recipe, phase, topology, say)
    if is_json:
        return json.dumps(report.as_json(made, price_per_chip_hour))
    return report.as_text(made, price_per_chip_hour)

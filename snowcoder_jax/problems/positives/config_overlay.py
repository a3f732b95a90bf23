"""Layered settings that remember where each value came from.

A program reads its settings from several places: built-in defaults, a file, the
command line. Each place is a named layer, a dictionary that may be nested. Later
layers win. When something is set wrongly, users ask "who set this?", so besides
the merged value we want the name of the layer that supplied it.

Write ``overlay(layers)``. It takes ``(name, settings)`` pairs, weakest first, and
returns a flat dictionary from dotted key to ``(value, layer name)``. A plain
value replaces a whole section of the same name, and the other way round.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``(dotted key, value)`` for every value that is not a section."""
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _conflict(first: str, second: str) -> bool:
    """Tell whether one dotted key names a section that contains the other."""
    return first.startswith(second + ".") or second.startswith(first + ".")


def overlay(
    layers: Iterable[tuple[str, Mapping[str, Any]]],
) -> dict[str, tuple[Any, str]]:
    """Merge the layers and note the origin of every value."""
    merged: dict[str, tuple[Any, str]] = {}
    for layer_name, settings in layers:
        for path, value in _leaves(settings):
            # A key cannot be a value and a section at once: the older one goes.
            for old in [old for old in merged if _conflict(old, path)]:
                del merged[old]
            merged[path] = (value, layer_name)
    return merged


if __name__ == "__main__":
    result = overlay(
        [
            ("defaults", {"log": {"level": "info", "file": "app.log"}, "port": 80}),
            ("file", {"log": {"level": "debug"}, "port": {"http": 8080}}),
            ("command line", {"port": {"http": 9000}}),
        ]
    )
    assert result == {
        "log.level": ("debug", "file"),
        "log.file": ("app.log", "defaults"),
        "port.http": (9000, "command line"),
    }
    for key, (value, origin) in sorted(result.items()):
        print(f"{key} = {value!r}  (from {origin})")

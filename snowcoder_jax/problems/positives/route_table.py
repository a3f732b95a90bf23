"""Find the handler for a web address.

A small web server keeps a table of route patterns such as ``/users/:id/posts``. A
part that starts with a colon stands for any single, non-empty part of the path and
gives it a name; every other part must match literally. When several patterns
match, the one whose first differing part is literal wins, so ``/users/me`` is
preferred to ``/users/:id`` for the path ``/users/me``.

Write a route table with ``add(pattern, handler)`` and ``find(path)``. The latter
returns the handler and the named parts, or ``None`` if nothing matches.
"""

from typing import Any


class RouteTable:
    """Matches paths against patterns with named parts."""

    def __init__(self) -> None:
        self._routes: list[tuple[list[str], Any]] = []

    def add(self, pattern: str, handler: Any) -> None:
        self._routes.append((pattern.strip("/").split("/"), handler))
        # False sorts before True: comparing the parts one by one puts literal
        # parts first. Sorting once here lets find() stop at the first match.
        self._routes.sort(key=lambda route: [p.startswith(":") for p in route[0]])

    def find(self, path: str) -> tuple[Any, dict[str, str]] | None:
        parts = path.strip("/").split("/")
        for pattern, handler in self._routes:
            named = self._match(pattern, parts)
            if named is not None:
                return handler, named
        return None

    @staticmethod
    def _match(pattern: list[str], parts: list[str]) -> dict[str, str] | None:
        """Return the named parts if the path fits the pattern, else None."""
        if len(pattern) != len(parts):
            return None
        named: dict[str, str] = {}
        for wanted, part in zip(pattern, parts):
            if wanted.startswith(":") and part:
                named[wanted[1:]] = part
            elif wanted != part:
                return None
        return named


if __name__ == "__main__":
    routes = RouteTable()
    routes.add("/users/:id", "show user")
    routes.add("/users/me", "show myself")
    routes.add("/users/:id/posts/:post", "show post")
    assert routes.find("/users/42") == ("show user", {"id": "42"})
    assert routes.find("/users/me") == ("show myself", {})
    assert routes.find("/users/7/posts/3/") == ("show post", {"id": "7", "post": "3"})
    assert routes.find("/users") is None
    assert routes.find("/users//posts/3") is None
    print("all routes found")

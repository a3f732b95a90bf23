"""HTML built from Python: everything is escaped unless it already is `Html`.

File contents in a report are hostile: a document may hold `</script>`, NUL, lone surrogates or
characters that reorder the text around them. `clean` makes each of them visible; `tag` escapes.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# Control characters but tab and newline; bidirectional controls (they can make code read
# differently from what it is); lone surrogates and non-characters.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff"
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"
)
_VOID_TAGS = frozenset({"br", "meta", "col", "hr"})


class Html(str):
    """Text that is HTML already and is not escaped again."""

    __slots__ = ()


def clean(text: str) -> str:
    """`text` with what cannot or must not stand on a page made visible (NUL: `⟨U+0000⟩`)."""
    text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(lambda match: f"⟨U+{ord(match.group()):04X}⟩", text)


def escape(value: object) -> Html:
    """Any value as HTML; `Html` goes through unchanged, None is empty."""
    if isinstance(value, Html):
        return value
    return Html("" if value is None else html.escape(clean(str(value)), quote=True))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element. `class_` gives `class`, `aria_label` gives `aria-label`; an attribute of
    value None is left out, True is written without a value."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(f" {attribute}")
        elif value is not None:
            # An `Html` value holds no quotes that matter only if escaped: escape it as text.
            parts.append(f' {attribute}="{html.escape(clean(str(value)), quote=True)}"')
    parts.append(">")
    if name not in _VOID_TAGS:
        parts.extend(escape(child) for child in children)
        parts.append(f"</{name}>")
    return Html("".join(parts))


def join(children: Iterable[object], separator: str = "") -> Html:
    return Html(separator.join(escape(child) for child in children))


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    caption: object = None,
    numeric: Sequence[int] = (),
    class_: str | None = None,
) -> Html:
    """A table in a box that scrolls sideways; the first cell of each row is its heading.

    Args:
      header: the cells of the first line.
      rows: as many cells each; strings are escaped.
      caption: a sentence above the table.
      numeric: columns set to the right.
      class_: further classes of the table.
    """

    def kind(column: int) -> str | None:
        return "num" if column in numeric else None

    head = [tag("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(header)]
    lines = [
        tag(
            "tr",
            *(
                tag("th", cell, scope="row", class_=kind(i))
                if i == 0
                else tag("td", cell, class_=kind(i))
                for i, cell in enumerate(row)
            ),
        )
        for row in rows
    ]
    content = tag(
        "table",
        tag("caption", caption) if caption else None,
        tag("thead", tag("tr", *head)),
        tag("tbody", *lines),
        class_=class_,
    )
    return tag("div", content, class_="scroll", tabindex="0")


def bar(share: float | None, class_: str = "") -> Html:
    """A horizontal bar of `share` (0 to 1) of its cell; empty for None."""
    if share is None:
        return Html("")
    width = f"{100 * min(max(share, 0.0), 1.0):.2f}%"
    inner = tag("span", style=f"width:{width}")
    return tag("span", inner, class_=f"bar {class_}".strip(), aria_hidden="true")


def details(summary: object, *children: object, open_: bool = False) -> Html:
    return tag("details", tag("summary", summary), *children, open=True if open_ else None)


def mapping(value: Any) -> dict[str, Any]:
    """`value` where it is a mapping, else an empty one: any part of a report may be null."""
    return {str(k): v for k, v in value.items()} if isinstance(value, Mapping) else {}


def sequence(value: Any) -> list[Any]:
    """`value` where it is a list, else an empty one."""
    return list(value) if isinstance(value, (list, tuple)) else []


def at(value: Any, *keys: str) -> Any:
    """The leaf under `keys`, or None where any step of the way is missing or null."""
    for key in keys:
        value = mapping(value).get(key)
    return value

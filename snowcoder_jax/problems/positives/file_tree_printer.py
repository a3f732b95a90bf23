"""Turn a flat list of file paths into an indented tree.

Version control tools and archives list files as full paths. For a report we want
to show them as a tree instead: every folder on its own line with a slash at the
end, its contents two spaces deeper, folders before files, and each group in
alphabetical order. Write a function that takes paths with forward slashes and
returns the lines of the tree.

    docs/guide.md            docs/
    docs/img/logo.png  --->    img/
    setup.cfg                    logo.png
                               guide.md
                             setup.cfg
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

# A folder maps names to sub-folders; a file is marked by None.
Folder = dict[str, "Folder | None"]


def build_tree(paths: Iterable[str]) -> Folder:
    """Collect the paths in nested dictionaries."""
    root: Folder = {}
    for path in paths:
        *folders, name = path.split("/")
        place = root
        for folder in folders:
            place = place.setdefault(folder, {})
        place[name] = None
    return root


def tree_lines(folder: Folder, depth: int = 0) -> Iterator[str]:
    """Yield the lines of the tree, folders first at each level."""
    indent = "  " * depth
    # False sorts before True, so folders (content is not None) come first.
    for name in sorted(folder, key=lambda name: (folder[name] is None, name)):
        content = folder[name]
        if content is None:
            yield f"{indent}{name}"
        else:
            yield f"{indent}{name}/"
            yield from tree_lines(content, depth + 1)


if __name__ == "__main__":
    listing = ["setup.cfg", "docs/img/logo.png", "docs/guide.md", "a/b/c.txt"]
    lines = list(tree_lines(build_tree(listing)))
    assert lines == [
        "a/",
        "  b/",
        "    c.txt",
        "docs/",
        "  img/",
        "    logo.png",
        "  guide.md",
        "setup.cfg",
    ]
    print("\n".join(lines))

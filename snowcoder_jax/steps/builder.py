"""Collects steps and addresses what they make."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from typing import Any

from snowcoder_jax import storage
from snowcoder_jax.code_version import code_fingerprint
from snowcoder_jax.errors import InputError
from snowcoder_jax.progress import Progress
from snowcoder_jax.recipe import Recipe, fingerprint
from snowcoder_jax.run import Facts, Step

# Gets (folder, key, progress); returns what the report tells of the step.
Work = Callable[[str, str, Progress], Facts]


class Builder:
    """Steps in the making.

    Attributes:
      steps: in order.
      keys: folder -> key of the step that fills it, so that a later key covers what it reads.
      named: short name -> folder, for what later steps look up.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.steps: list[Step] = []
        self.keys: dict[str, str] = {}
        self.named: dict[str, str] = {}
        self._reads: dict[str, tuple[str, ...]] = {}

    def path(self, *parts: str) -> str:
        return storage.join(self.recipe.output, *parts)

    @property
    def run_folder(self) -> str:
        return self.path("runs", self.recipe.name)

    def add(
        self,
        name: str,
        *,
        inside: str,
        prefix: str = "",
        params: Any,
        reads: tuple[str, ...] = (),
        code: tuple[str, ...] = (),
        work: Work,
        watch_suffix: str | None = None,
        total: int = 0,
        keyed: bool = True,
        outputs: tuple[str, ...] = (),
        together: bool = False,
    ) -> str:
        """Add a step and return its folder.

        Args:
          name: unique in the run; also the short name under which `named` knows the folder.
          inside: the folder is `inside`/`prefix`KEY (or `inside` itself where not `keyed`).
          params: what the result depends on besides `reads` and `code`.
          reads: folders of earlier steps.
          code: source files behind the result, relative to the repository.
          outputs: files outside the folder that must be there too.
          together: all processes of the run do it at once.
          watch_suffix: count files of this ending in the folder as progress towards `total`.
        """
        key = fingerprint(name, params, [self.keys[r] for r in reads], code_fingerprint(*code))
        folder = storage.join(inside, prefix + key) if keyed else inside
        watch = None
        if watch_suffix is not None:
            watch = functools.partial(_count_files, folder, watch_suffix)
        self.steps.append(
            Step(
                name,
                key,
                folder,
                functools.partial(work, folder, key),
                watch,
                total,
                outputs,
                together,
            )
        )
        self.keys[folder] = key
        self.named[name] = folder
        self._reads[name] = reads
        return folder

    def up_to(self, words: Collection[str]) -> list[Step]:
        """The steps whose first word is one of `words`, and all that they read, in order.

        Raises:
          InputError: the recipe has no such step.
        """
        wanted = [s.name for s in self.steps if s.name.split(" ")[0] in words]
        if "select" in words:
            # Choosing among synthetic documents needs a trained teacher: that is `synthesize`.
            corpus = {s.name for s in self.recipe.selections if s.source == "corpus"}
            wanted = [name for name in wanted if name.removeprefix("select ") in corpus]
        if not wanted:
            raise InputError(
                f"recipe {self.recipe.name}: has nothing to {'/'.join(words)}. "
                "Use `snowcoder run`, or add what is missing to the recipe."
            )
        return self.needed_by(wanted)

    def needed_by(self, names: Collection[str]) -> list[Step]:
        """The steps of these names, and all that they read, in order."""
        step_of = {folder: name for name, folder in self.named.items() if name in self._reads}
        wanted = list(names)
        needed: set[str] = set()
        while wanted:
            name = wanted.pop()
            if name not in needed:
                needed.add(name)
                wanted += [step_of[r] for r in self._reads[name] if r in step_of]
        return [s for s in self.steps if s.name in needed]


def _count_files(folder: str, suffix: str) -> int:
    return len(storage.list_files(folder, suffix))
